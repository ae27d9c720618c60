"""What one GPU does per second at the size of the published experiments; the network's share of it.

    python bench/gpu.py

DINet on ResNet-50 at 480 x 640, 512 bases on a grid of 60 x 80, 25 of 1,300 semantics in each image; random
weights, and images held in memory, so that decoding is left out. Wall time after a warm-up, in float32
(convolutions in TensorFloat-32, torch's default) and with the network in bfloat16. The dissection is timed
with all images and with a third of them: what does not grow with the images is counted once. The published
pair loop is timed on the same device. Without a GPU the CPU is measured; tests run it so, with tiny sizes.
Writes bench/gpu.json.
"""
import argparse, json, sys, time
from pathlib import Path
from unittest.mock import patch
import torch
from saliency_nb.bases import build_model, initialise
from saliency_nb.core import versions
from saliency_nb.dissection import dissect
from saliency_nb.thresholds import adaptive_thresholds
from simulated import Simulated, pair_loop

VISUAL_GENOME = 108_077 # images

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--backbone', default='resnet50')
parser.add_argument('--size', type=int, nargs=2, default=(480, 640))
parser.add_argument('--n-bases', type=int, default=512)
parser.add_argument('--semantics', type=int, default=1300)
parser.add_argument('--images', type=int, default=600)
parser.add_argument('--batch', type=int, default=20)
parser.add_argument('--out', default='bench/gpu.json')
args = parser.parse_args()
cuda = torch.cuda.is_available()
device, size = 'cuda' if cuda else 'cpu', tuple(args.size)
pictures = torch.randn(args.batch, 3, *size, generator=torch.Generator().manual_seed(0))

class Images:
    "Reference images from memory."
    def __len__(self): return args.images
    def __getitem__(self, i): return pictures[i % args.batch]

def seconds(work):
    "Wall time of work that is really done when it returns."
    if cuda: torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if cuda: torch.cuda.synchronize()
    return time.perf_counter() - start

torch.manual_seed(0)
first = build_model('dinet', n_bases=args.n_bases, backbone=args.backbone)
model = initialise(first, pictures[:4]).to_phase2().eval()
model.to(device, memory_format=torch.channels_last)
network = model.basis_logits

def half(images): # thresholds and sums stay in float32
    with torch.autocast(device, torch.bfloat16): return network(images)

def forward():
    "The network alone, with the copies to the device that it needs."
    for _ in range(args.images // args.batch):
        model.basis_logits(pictures.to(device).contiguous(memory_format=torch.channels_last))

def dissection(thresholds, images):
    return seconds(lambda: dissect(model, Simulated(images, args.semantics), thresholds, size, args.batch))

def measured():
    "Images per second of each step, and the share of the dissection that is the network's."
    forward()
    alone = seconds(forward) / args.images
    thresholds = adaptive_thresholds(model, Images(), batch=args.batch)
    sampling = seconds(lambda: adaptive_thresholds(model, Images(), batch=args.batch)) / args.images
    few = max(args.images // 3, 12)
    dissection(thresholds, few) # warmed up
    some, whole = (dissection(thresholds, n) for n in (few, args.images))
    each = (whole - some) / (args.images - few)
    once = max(whole - each * args.images, 0.)
    rates = dict(forward=round(1 / alone), thresholds=round(1 / sampling), dissection=round(1 / each))
    shares = dict(network_ms=round(1000 * alone, 2), dissection_ms=round(1000 * each, 2))
    shares |= dict(share_of_the_network=round(alone / each, 3), once_seconds=round(once, 1))
    return rates | shares | dict(visual_genome_minutes=round((VISUAL_GENOME * each + once) / 60, 1))

name = torch.cuda.get_device_name() if cuda else 'cpu'
found = dict(command=' '.join(['python', *sys.argv]), device=name, versions=versions())
found |= dict(images=args.images, size=list(size), n_bases=args.n_bases, semantics=args.semantics)
print(found['device'], flush=True)
with torch.no_grad(), patch('saliency_nb.dissection.read_image', lambda i, _: pictures[i % args.batch]):
    for name, model.basis_logits in (('float32', network), ('bfloat16', half)):
        found[name] = measured()
        print(f'{name}, images per second:', found[name], flush=True)

z, masks = torch.randn(args.n_bases, 4800).to(device), (torch.rand(25, 4800) < .1).to(device)
t, few = torch.full((args.n_bases,), .84, device=device), min(32, args.n_bases)
pair_loop(z[:4], t, masks)
loop = 1000 * seconds(lambda: pair_loop(z[:few], t, masks)) * args.n_bases / few
ratio = loop / found['float32']['dissection_ms']
found['published pair loop, one image'] = dict(ms=round(loop), ratio_to_dissection=round(ratio, 1))
print(found['published pair loop, one image'])
Path(args.out).write_text(json.dumps(found, indent=1) + '\n')
