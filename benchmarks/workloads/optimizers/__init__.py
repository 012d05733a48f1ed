"""Updates by optimizers: what a step costs besides gradients."""
