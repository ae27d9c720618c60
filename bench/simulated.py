"""What bench/dissection.py, bench/gpu.py and tests/test_gpu.py share.

The published procedure, generated regions, and batches of generated activations.
"""
import numpy as np, torch
from saliency_nb.chance import PARTNERS
from saliency_nb.dissection import Batch
from saliency_nb.regions import Regions

def pair_loop(z, thresholds, masks):
    "The published procedure."
    result = np.zeros((len(z), len(masks)))
    for n in range(len(z)):
        for c in range(len(masks)):
            on, region = (z[n] > thresholds[n]).float(), masks[c].float()
            result[n, c] = (on * region).sum().item() / ((on + region) > 0).float().sum().item()
    return result

class Simulated(Regions):
    "Boxes of about 25 of many semantics per image, made from the image's number."
    def __init__(self, images, semantics, most=25):
        names = [f'semantic_{c:04d}' for c in range(semantics)]
        super().__init__(dict.fromkeys(range(images), ''), names, [])
        self.most = most

    def image_path(self, i): return i

    def masks(self, i, grid):
        g = np.random.default_rng(i)
        c = g.choice(len(self.semantics), min(self.most, len(self.semantics)), replace=False)
        y, x = g.integers(0, (grid[0] - 2, grid[1] - 2), (len(c), 2)).T
        h, w = g.integers(1, np.array(grid) // 2, (len(c), 2)).T
        rows, columns = np.arange(grid[0]), np.arange(grid[1])
        down = (rows >= y[:, None]) & (rows <= (y + h)[:, None])
        across = (columns >= x[:, None]) & (columns <= (x + w)[:, None])
        return [self.semantics[k] for k in c], down[:, :, None] & across[:, None]

def crossed(own):
    "Partners and guests of an image: its own masks, moved from name to name."
    names, masks = own[:2]
    again = np.tile(names, PARTNERS), np.concatenate([np.roll(masks, k + 1, 0) for k in range(PARTNERS)])
    known = own[2] * PARTNERS, np.full(PARTNERS * len(names), 1 / PARTNERS)
    guests = again[0], np.roll(np.tile(masks, (PARTNERS, 1)), 1, 0), *known
    return (*again, *known), guests

def generated_batches(regions, n, grid, images, size=10, device='cpu'):
    "Batches of noise, shifted from image to image; partners and guests have other names' masks."
    g = torch.Generator().manual_seed(0)
    maps, kernels = (torch.randn(*shape, generator=g).to(device) for shape in ((3, n, *grid), (n, 1, 3, 3)))
    index = {s: i for i, s in enumerate(regions.semantics)}
    for start in range(0, images, size):
        position = list(range(start, min(start + size, images)))
        items = []
        for i in position:
            names, masks = regions.masks(i, grid)
            names, masks = np.array([index[s] for s in names]), masks.reshape(len(masks), -1)
            own = names, masks, [str(i)] * len(names), np.ones(len(names))
            items.append((i, str(i), None, own, *crossed(own)))
        logits = torch.stack([maps[i % 3].roll(i % (grid[0] * grid[1]), -1) for i in position])
        yield Batch(items, logits, lambda a: torch.nn.functional.conv2d(a, kernels, padding=1, groups=n))
