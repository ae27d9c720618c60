"""Channels and names that are planted in features, for tests and the chapters on dictionaries and units."""
import torch
from saliency_nb.core import derived_seed
from saliency_nb.overlap import Seen

def planted_channels(places=20_000, channels=24, features=32, active=.1, seed=0):
    "Sparse channels (places, K) >= 0, mixed by a random matrix to features (places, D) of variance 1."
    draw = torch.Generator().manual_seed(derived_seed(seed, 'planted channels'))
    on = torch.rand(places, channels, generator=draw) < active
    strength = .5 + torch.rand(places, channels, generator=draw)
    planted = on * strength
    mixed = planted @ torch.randn(channels, features, generator=draw)
    mixed = mixed + .02 * torch.randn(mixed.shape, generator=draw)
    return (mixed - mixed.mean(0)) / mixed.std(0), planted

def correlations(codes, channels):
    "Correlation of each unit with each channel, over places: (N, K)."
    both = torch.corrcoef(torch.cat([codes, channels], 1).T)
    return both[:codes.shape[1], codes.shape[1]:].nan_to_num() # 0 where one is constant

def recovered_share(codes, channels, least=.8):
    "Share of the planted channels that some unit follows."
    return float((correlations(codes, channels).abs().amax(0) > least).float().mean())

def planted_images(images=80, grid=(12, 16), looks=40, seed=0):
    "Items as of `FrozenFeatures`, where the first three channels draw looks; and the channels of all places."
    x, planted = planted_channels(images * grid[0] * grid[1], seed=seed)
    draw = torch.Generator().manual_seed(derived_seed(seed, 'planted images'))
    density = torch.softmax(2 * planted[:, :3].sum(1).view(images, -1), 1)
    seen = density.multinomial(looks, True, generator=draw)
    counts = torch.zeros_like(density).scatter_add_(1, seen, torch.ones(seen.shape))
    maps = dict(features=x.view(images, *grid, -1).permute(0, 3, 1, 2))
    maps |= dict(fixations=counts.view(-1, *grid), density=density.view(-1, *grid))
    def item(i): return {k: v[i] for k, v in maps.items()} | dict(id=str(i))
    return [item(i) for i in range(images)], planted

# images with names

GRID = 12, 16 # cells

def squares(n, draw):
    "Squares of 4 x 4 cells anywhere on the grid: (n, places) bool."
    masks = torch.zeros(n, *GRID, dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(size - 4, (1,), generator=draw)) for size in GRID)
        mask[y:y + 4, x:x + 4] = True
    return masks.flatten(1)

def image_with_names(number, mix, draw):
    "Three names somewhere, channels that are active more often there, mixed into features by mix (3 C, D)."
    names = len(mix) // 3
    named = torch.randperm(names, generator=draw)[:3]
    masks = squares(3, draw)
    chance = torch.full((masks.shape[1], names, 3), .05)
    for name, mask in zip(named, masks): chance[mask, name] = .4
    strength = torch.rand(chance.shape, generator=draw) + .5
    planted = strength * (torch.rand(chance.shape, generator=draw) < chance)
    x = planted.flatten(1) @ mix
    return Seen(f'image_{number}', x + .1 * torch.randn(x.shape, generator=draw), named, masks, GRID)

def images_with_names(images=80, names=8, features=32, collapsed=False, seed=0):
    "Images with names, of which each has three channels of its own; collapsed: all channels add to one axis."
    draw = torch.Generator().manual_seed(derived_seed(seed, 'planted images'))
    mix = torch.randn(3 * names, features, generator=draw)
    if collapsed: mix = torch.rand(3 * names, 1, generator=draw) * mix[:1].sign()
    return [image_with_names(i, mix, draw) for i in range(images)]

def all_features(seen):
    "Features of all places of images."
    return torch.cat([image.features for image in seen])

def with_extra(image, other):
    "An image with the names of another one that it lacks: labels that do not belong there."
    new = ~torch.isin(other.names, image.names)
    names = torch.cat([image.names, other.names[new]])
    return image._replace(names=names, masks=torch.cat([image.masks, other.masks[new]]))

def relabelled(seen, how, seed=0):
    "Images with wrong labels; missing: each name with probability 1/2; extra: those of any other image, too."
    draw = torch.Generator().manual_seed(derived_seed(seed, how))
    def without(image):
        kept = torch.rand(len(image.names), generator=draw) < .5
        return image._replace(names=image.names[kept], masks=image.masks[kept])
    def another(): return seen[int(torch.randint(len(seen), (1,), generator=draw))]
    return [without(i) if how == 'missing' else with_extra(i, another()) for i in seen]
