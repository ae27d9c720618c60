"""What bench/dissection.py, bench/gpu.py and tests/test_gpu.py share: the published procedure, generated regions, and batches of generated activations."""
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
        super().__init__(dict.fromkeys(range(images), ''), [f'semantic_{c:04d}' for c in range(semantics)], [])
        self.most = most

    def image_path(self, i): return i

    def masks(self, i, grid):
        g = np.random.default_rng(i)
        c = g.choice(len(self.semantics), min(self.most, len(self.semantics)), replace=False)
        (y, x), (h, w) = g.integers(0, (grid[0] - 2, grid[1] - 2), (len(c), 2)).T, g.integers(1, np.array(grid) // 2, (len(c), 2)).T
        rows, columns = np.arange(grid[0]), np.arange(grid[1])
        down = (rows >= y[:, None]) & (rows <= (y + h)[:, None])
        across = (columns >= x[:, None]) & (columns <= (x + w)[:, None])
        return [self.semantics[k] for k in c], down[:, :, None] & across[:, None]

def generated_batches(regions, n, grid, images, size=10, device='cpu'):
    "Batches of noise, shifted from image to image; other names' masks are the partners' regions and the guests."
    g = torch.Generator().manual_seed(0)
    maps, kernels = torch.randn(3, n, *grid, generator=g).to(device), torch.randn(n, 1, 3, 3, generator=g).to(device)
    index = {s: i for i, s in enumerate(regions.semantics)}
    for start in range(0, images, size):
        position = list(range(start, min(start + size, images)))
        items = []
        for i in position:
            names, masks = regions.masks(i, grid)
            names, masks = np.array([index[s] for s in names]), masks.reshape(len(masks), -1)
            own = names, masks, [str(i)] * len(names), np.ones(len(names))
            partners = np.tile(names, PARTNERS), np.concatenate([np.roll(masks, k + 1, 0) for k in range(PARTNERS)]), own[2] * PARTNERS, np.full(PARTNERS * len(names), 1 / PARTNERS)
            guests = partners[0], np.roll(np.tile(masks, (PARTNERS, 1)), 1, 0), *partners[2:]
            items.append((i, str(i), None, own, partners, guests))
        logits = torch.stack([maps[i % 3].roll(i % (grid[0] * grid[1]), -1) for i in position])
        yield Batch(items, logits, lambda a: torch.nn.functional.conv2d(a, kernels, padding=1, groups=n))
