"""The review page, where people mark wrong labels.

- :mod:`session`: answers the page's requests; :func:`session.open_session` opens a review from a table and its images.
- :mod:`server`, :mod:`auth`: the page in a browser; :mod:`widget`: the page in a notebook.
- :mod:`requests`: errors with their HTTP status, and parsers of requests.
- :mod:`samples`, :mod:`views`, :mod:`filters`: what is shown, in which groups and order.
- :mod:`image_map`: the map of all images; :mod:`neighbours`: the images most like one.
- :mod:`confusion`, :mod:`explain`: where suspicion is, and what is known of one sample, in words.
- :mod:`sprites`: the images.
- :mod:`marks`, :mod:`journal`, :mod:`fixes_file`: what was marked, durable; undo and redo.
- :mod:`progress`: how far the review is, and where each reviewer is.
- ``assets``: the page's HTML, style sheet and scripts (``review.js`` is the first); :mod:`bundle`: these in one.

Nothing here imports torch.
"""
