"""A small dissection, to be started as a process of its own by test_dissection.py, or in several by torchrun; with FOLDER it keeps its sums there:

    dissection_job.py OUT BATCH SECONDS [FOLDER [reversed]]
"""
import sys, time
import numpy as np, torch
import torch.distributed as dist
from torch import nn
from saliency_nb.bases import FactorizedSaliency
from saliency_nb.core import rng
from saliency_nb.regions import Regions
from saliency_nb.adjustment import Adjustment, solved
from saliency_nb.thresholds import reference_pass, sample_thresholds
from saliency_nb.batches import process
import saliency_nb.dissection as dissection
import saliency_nb.thresholds as thresholds

IMAGES, GRID = 61, (12, 16)

class Noise(Regions):
    "Regions made from the number of the image; reading an image takes a while."
    def __init__(self, backwards=False):
        ids = [f'noise_{i}' for i in range(IMAGES)]
        super().__init__(dict.fromkeys(ids[::-1] if backwards else ids, ''), ['dog', 'red', 'sky', 'tall'], [])
    def masks(self, i, grid):
        g = rng(0, 'regions', i); there = g.random(4) < .7
        return [n for n, t in zip(self.semantics, there) if t], np.stack([g.random(grid) < .3 for _ in range(there.sum())]) if there.any() else np.zeros((0, *grid), bool)

def image(i): return torch.from_numpy(rng(0, 'image', i).normal(size=(3, 48, 64))).float()

class Blobs(nn.Module):
    dim = 8
    def __init__(self): super().__init__(); self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 5, 2, 2), nn.ReLU())
    def forward(self, images): return self.body(images)

def model_of_noise():
    torch.manual_seed(0)
    return FactorizedSaliency(Blobs(), n_bases=12)

def work(out, batch, seconds, folder=None, order=''):
    regions = Noise(order == 'reversed')
    regions.image_path = lambda i: i
    def read(i, size): time.sleep(seconds); return image(i)
    thresholds.EVERY = 0 # so that all is saved
    dissection.read_image = read
    model = model_of_noise()
    seen = reference_pass(model, torch.stack([image(i) for i in Noise().ids]), batch)
    effects = Adjustment(regions, 12, seen.usual(), inside=[])
    found = dissection.dissect(model, regions, sample_thresholds(seen.sample()), (48, 64), batch, also=(effects,), folder=folder)
    names = ('adjusted', 'on', 'effect', 'low', 'high', 'influence')
    found = found.merge(solved(effects)[list(names)].drop_vars('fold', errors='ignore').rename(effect='adjusted_effect', low='adjusted_low', high='adjusted_high'))
    if process()[0] == 0: found.sortby('image').to_netcdf(out, engine='h5netcdf', encoding={k: dict(zlib=False) for k in found.data_vars})

if __name__ == '__main__':
    torch.set_num_threads(1)
    if dist.is_torchelastic_launched(): dist.init_process_group('gloo')
    work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
    if dist.is_initialized(): dist.destroy_process_group()
