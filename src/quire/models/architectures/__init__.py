"""One file per family: its config read into a ModelPlan. The registry imports them by name."""
