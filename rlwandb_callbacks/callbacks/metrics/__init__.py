"""Training metrics: values of ``training_step``, of the module and of the optimizers."""
