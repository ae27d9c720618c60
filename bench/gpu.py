"""What one GPU does per second: forward passes, the sample of the thresholds, and the dissection, at the size of the published experiments; and what share is not the network's.

    python bench/gpu.py

DINet on ResNet-50 at 480 x 640, 512 bases on a grid of 60 x 80, 25 of 1,300 semantics in each image; random weights and images held in memory, so decoding is left out. Wall time after a
warm-up, in float32 (convolutions in TensorFloat-32, torch's default), and with the network in bfloat16. The published pair loop (bench/simulated.py) is timed on the same GPU. The dissection is timed with all images
and with a third of them, because tests of 665,600 pairs cost the same whatever their number. Writes bench/gpu.json.
"""
import argparse, json, time
from pathlib import Path
import torch
import saliency_nb.dissection as dissection
from saliency_nb.bases import build_model, initialise
from saliency_nb.core import versions
from saliency_nb.thresholds import adaptive_thresholds
from simulated import Simulated, pair_loop

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--backbone', default='resnet50'); parser.add_argument('--size', type=int, nargs=2, default=(480, 640)); parser.add_argument('--n-bases', type=int, default=512); parser.add_argument('--semantics', type=int, default=1300)
parser.add_argument('--images', type=int, default=600); parser.add_argument('--batch', type=int, default=20); parser.add_argument('--out', default='bench/gpu.json')
args = parser.parse_args()
device = 'cuda' if torch.cuda.is_available() else 'cpu'
print(torch.cuda.get_device_name() if device == 'cuda' else 'no GPU here', flush=True)

few = torch.randn(20, 3, *args.size, generator=torch.Generator().manual_seed(0))
class Images:
    def __len__(self): return args.images
    def __getitem__(self, i): return few[i % len(few)]
dissection.read_image = lambda i, size: few[i % len(few)]

def seconds(work):
    if device == 'cuda': torch.cuda.synchronize()
    start = time.perf_counter(); result = work()
    if device == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - start, result

torch.manual_seed(0)
model = initialise(build_model('dinet', n_bases=args.n_bases, backbone=args.backbone), few[:4]).to_phase2().eval().to(device, memory_format=torch.channels_last)
def forward():
    for i in range(0, args.images, args.batch): model.basis_logits(torch.stack([few[k % len(few)] for k in range(i, min(i + args.batch, args.images))]).to(device).contiguous(memory_format=torch.channels_last))

found = dict(command='python bench/gpu.py', device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', versions=versions(), images=args.images, size=list(args.size), n_bases=args.n_bases, semantics=args.semantics)
network = model.basis_logits
def half(images): # only the network: thresholds and counts stay in float32
    with torch.autocast(device, torch.bfloat16): return network(images)
for name, model.basis_logits in (('float32', network), ('bfloat16', half)):
    with torch.no_grad():
        forward(); plain = seconds(forward)[0]
        twice, thresholds = seconds(lambda: adaptive_thresholds(model, Images(), batch=args.batch))
        dissection.dissect(model, Simulated(args.batch, args.semantics), thresholds, tuple(args.size), args.batch) # warmed up
        few_images, many = (seconds(lambda: dissection.dissect(model, Simulated(n, args.semantics), thresholds, tuple(args.size), args.batch))[0] for n in (args.images // 3, args.images))
        each = (many - few_images) / (args.images - args.images // 3) # what does not grow with the images is left out: memory for the folds, tests of all pairs
    found[name] = dict(forward=round(args.images / plain), thresholds=round(args.images / twice), dissection=round(1 / each), dissection_ms=round(1000 * each, 2), network_ms=round(1000 * plain / args.images, 2), share_of_the_network=round(plain / args.images / each, 3), dissection_once_seconds=round(many - each * args.images, 1), largest_error_of_share=round(float(abs(thresholds.active - .2).max()), 5))
    print(f'{name}, images per second:', found[name], flush=True)
z, masks = (v.to(device) for v in (torch.randn(512, 4800), torch.rand(25, 4800) < .1)); t = torch.full((512,), .84, device=device)
pair_loop(z[:4], t, masks); loop = seconds(lambda: pair_loop(z[:32], t, masks))[0] * 16
found['published pair loop, one image'] = dict(ms=round(1000 * loop), ratio_to_dissection=round(1000 * loop / found['float32']['dissection_ms'], 1))
print(found['published pair loop, one image'])
Path(args.out).write_text(json.dumps(found, indent=1) + '\n')
