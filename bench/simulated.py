"""What bench/dissection.py and bench/gpu.py share: the published procedure, and generated regions."""
import numpy as np
from saliency_nb.semantics import Regions

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
    def __init__(self, images, semantics, most=25): super().__init__(dict.fromkeys(range(images), ''), [f'semantic_{c:04d}' for c in range(semantics)], []); self.most = most
    def image_path(self, i): return i
    def masks(self, i, grid):
        g = np.random.default_rng(i); c = g.choice(len(self.semantics), min(self.most, len(self.semantics)), replace=False)
        (y, x), (h, w) = g.integers(0, (grid[0] - 2, grid[1] - 2), (len(c), 2)).T, g.integers(1, np.array(grid) // 2, (len(c), 2)).T
        rows, columns = np.arange(grid[0]), np.arange(grid[1])
        return [self.semantics[k] for k in c], ((rows >= y[:, None]) & (rows <= (y + h)[:, None]))[:, :, None] & ((columns >= x[:, None]) & (columns <= (x + w)[:, None]))[:, None]
