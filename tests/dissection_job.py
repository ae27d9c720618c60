"""A small dissection, to be started as a process of its own by test_dissection.py, or in several by torchrun:

    dissection_job.py OUT BATCH SECONDS [FOLDER [reversed]]

Reading an image takes so many seconds; with FOLDER it keeps its sums there.
"""
import sys, time
import torch
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
ADJUSTED = dict(effect='adjusted_effect', low='adjusted_low', high='adjusted_high') # names of their own

class Noise(Regions):
    "Regions made from the number of the image."
    def __init__(self, backwards=False):
        ids = [f'noise_{i}' for i in range(IMAGES)]
        if backwards: ids.reverse()
        super().__init__(dict.fromkeys(ids, ''), ['dog', 'red', 'sky', 'tall'], [])

    def masks(self, i, grid):
        g = rng(0, 'regions', i)
        there = g.random(4) < .7
        names = [name for name, shown in zip(self.semantics, there) if shown]
        return names, g.random((len(names), *grid)) < .3

def image(i): return torch.from_numpy(rng(0, 'image', i).normal(size=(3, 48, 64))).float()

class Blobs(nn.Module):
    "Two convolutions."
    dim = 8
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 8, 5, 2, 2)
        self.body = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    def forward(self, images): return self.body(images)

def model_of_noise():
    torch.manual_seed(0)
    return FactorizedSaliency(Blobs(), n_bases=12)

def work(out, batch, seconds, folder=None, order=''):
    "Dissect, and write what is found beside the adjusted effects."
    regions = Noise(order == 'reversed')
    regions.image_path = lambda i: i
    def read(i, size):
        time.sleep(seconds)
        return image(i)
    thresholds.EVERY = 0 # so that all is saved
    dissection.read_image = read
    model = model_of_noise()
    seen = reference_pass(model, torch.stack([image(i) for i in Noise().ids]), batch)
    effects = Adjustment(regions, 12, seen.usual(), inside=[])
    t = sample_thresholds(seen.sample())
    found = dissection.dissect(model, regions, t, (48, 64), batch, also=(effects,), folder=folder)
    found = found.merge(adjusted_of(effects))
    if process()[0] == 0: write(found.sortby('image'), out)

def adjusted_of(effects):
    kept = solved(effects)[['adjusted', 'on', 'effect', 'low', 'high', 'influence']]
    return kept.drop_vars('fold', errors='ignore').rename(ADJUSTED)

def write(found, out):
    "Without compression."
    plain = {k: dict(zlib=False) for k in found.data_vars}
    found.to_netcdf(out, engine='h5netcdf', encoding=plain)

if __name__ == '__main__':
    torch.set_num_threads(1)
    if dist.is_torchelastic_launched(): dist.init_process_group('gloo')
    work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
    if dist.is_initialized(): dist.destroy_process_group()
