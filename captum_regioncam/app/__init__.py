"""The page to try the methods in a browser (``captum-regioncam app``, extra ``app``).

``explainer.py`` runs the network and remembers a photo's maps, ``results.py`` makes pictures, masks and boxes of them,
``downloads.py`` files and ``figures.py`` HTML. None of these knows Gradio. ``page.py`` connects them to the controls,
and ``serving.py`` runs the page and cleans up.
"""
