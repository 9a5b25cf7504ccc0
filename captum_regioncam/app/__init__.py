"""The page to try the methods in a browser (``captum-regioncam app``, extra ``app``).

``explainer.py`` runs the network and keeps a photo's maps. ``results.py`` turns maps into pictures, masks and boxes,
which ``downloads.py`` turns into files, and ``figures.py`` into HTML. None of these knows Gradio. ``page.py`` connects
them to the controls, and ``serving.py`` runs the page and cleans up.
"""
