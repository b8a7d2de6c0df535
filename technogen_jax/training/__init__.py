"""Training: read `step` for what one step computes, and `loop` for what a run does.

loop                 `train`: prepare a run, restore or initialize its state, make its input, run
step                 the training step, its two losses and its options
losses               adversarial losses and gradient penalties
optimizers           Adam, RMSProp and learning rate schedules
state                what a step carries to the next one
inputs               batches on the devices
dataset_stages       work on the dataset before the first step: a model's stages, encoding it
monitoring           metrics, NaN and Inf, the time limit, what is due after a step
progress_evaluation  generated clips against the valid split
previews             generated clips as audio and pictures
memory, signals, errors
"""
