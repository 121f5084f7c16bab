"""Networks and how they are trained, as LightningModules."""
