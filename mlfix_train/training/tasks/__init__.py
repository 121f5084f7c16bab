"""What ``mlfix train`` can train: a classifier or a sorting network, each as one :class:`~.base.TrainingTask`."""
