"""A small training, to be started as a process of its own by test_training.py, or in several by torchrun:

    training_job.py train OUT PHASE [EPOCHS [SECONDS [compile]]]
    training_job.py score CHECKPOINT OUT
"""
import sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset
from saliency_nb.bases import build_model, initialise, load_checkpoint
from saliency_nb.core import rng
from saliency_nb.hosts import register_host
from saliency_nb.batches import process
from saliency_nb.calibration import other_images
from saliency_nb.training import evaluate, train

SIZE = 32, 48

class Blobs(nn.Module):
    "Two convolutions with BatchNorm and dropout, which is random in every step."
    dim = 8
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 8, 5, 2, 2)
        self.body = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.2), second, nn.ReLU())
    def forward(self, images): return self.body(images)

def bright_spot(y, x):
    "A Gaussian of 3 pixels."
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in SIZE), indexing='ij')
    return torch.exp(-((rows - y)**2 + (columns - x)**2) / 18)

class Spots(Dataset):
    "Images with a bright spot people look at, made from their number; reading one takes a while."
    def __init__(self, n, first=0, seconds=0.):
        self.n, self.first = n, first
        self.seconds = seconds
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i >= self.n: raise IndexError(i)
        time.sleep(self.seconds)
        g = rng(0, 'spot', self.first + i)
        y, x = g.uniform((4, 4), (28, 44))
        spot, fixations = bright_spot(y, x), torch.zeros(SIZE)
        fixations[int(y), int(x)] = 3
        fixations[tuple(g.integers(0, SIZE))] += 1
        image = torch.from_numpy(g.normal(0, .3, (3, *SIZE))).float() + spot
        return dict(image=image, fixations=fixations, density=spot / spot.sum(), id=f'spot_{self.first + i}')

def first_model():
    "As a training starts."
    torch.manual_seed(0)
    images = torch.stack([Spots(8, 1000)[i]['image'] for i in range(8)])
    return initialise(build_model('spots', n_bases=8), images).eval()

def learn(out, phase, epochs=4, seconds=0., compiled=''):
    "Train on 40 images, choose on 13 others; reading an image takes so many seconds."
    model = first_model() if int(phase) == 1 else first_model().to_phase2()
    schedule = dict(batch=4, every=2, lr=1e-2, lr_every=3, compile=bool(compiled))
    train(model, Spots(40, 1000, float(seconds)), Spots(13, 2000), out, int(epochs), **schedule,
          trainer=dict(accelerator='cpu', devices=process()[1]))

def score(checkpoint, out):
    "Every metric of 201 images."
    table = evaluate(load_checkpoint(checkpoint), Spots(201), elsewhere=other_images(Spots(40, 1000)))
    if process()[0] == 0: table.to_csv(out)

JOBS = dict(train=learn, score=score)

if __name__ == '__main__':
    torch.set_num_threads(1)
    register_host('spots', Blobs)
    if dist.is_torchelastic_launched(): dist.init_process_group('gloo')
    JOBS[sys.argv[1]](*sys.argv[2:])
    if dist.is_initialized(): dist.destroy_process_group()
