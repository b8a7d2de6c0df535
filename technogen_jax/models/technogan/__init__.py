"""TechnoGAN: a GAN on codes that lie on the beat grid.

    model             `build`: connects the codec and the networks
    config            the fields of the model
    layout            the beat grid, and where each part is in the code
    codec             audio to code, and back
    generator         latents to output values: the backbone
    heads             output values to contributions to the code
    low_end           synthesizes the kick and the bass, for a head
    code_synthesizer  adds up the contributions
    discriminator     code and features to a logit
    critic_features   the features, besides the code, that the discriminator sees
    blocks            the residual block of both networks
    augment           remixes clips before the discriminator sees them
    stages            what a run does with the dataset before the first step
    shaper_training   trains the network that shapes the excitations of the decoder

The method, with a figure and equations: docs/technogan.md.
"""
