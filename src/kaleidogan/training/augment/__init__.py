"""What the discriminator sees the pictures through: `ada.ADA` or `diffaugment.DiffAugment`.

Both augment reals and fakes alike, and differentiably. So few pictures suffice, and the generator learns the
pictures, not the augmentations.
"""
