"""Pictures of photos and their maps, in a folder."""
