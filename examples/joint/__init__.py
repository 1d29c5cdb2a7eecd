"""Both panels from one network: a joint diffusion model of pictures and their sentences.

UniDiffuser (Bao et al. 2023): noise a pair with one level for each side, and a network that
estimates both sides gives every distribution there is. The joint one when both have the same level,
a conditional one when the other side is clean, a marginal one when the other side is all noise.
`python -m examples.joint` trains, samples and measures it; README.md shows how.
"""
