"""The method on tensors alone: no model, no hook, no Captum."""
