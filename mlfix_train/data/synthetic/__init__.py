"""A built-in data set of rendered traffic signs, for the demo and the tests.

- :mod:`~mlfix_train.data.synthetic.signs`: writes and reads the data set.
- :mod:`~mlfix_train.data.synthetic.sign_shapes`: the face of each sign; :mod:`~mlfix_train.data.synthetic.sign_scenes`:
  the street around it and the camera.
"""
