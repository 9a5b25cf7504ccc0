"""The field's metrics of segmentation and localisation."""
