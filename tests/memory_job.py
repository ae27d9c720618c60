"Train on many large images in an own process: memory_job.py FOLDER IMAGES GIGABYTES prints what it took."
import json, os, resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from nightly import NIGHTLY
from PIL import Image
from torch import nn

SIZE = 480, 640

class Small(nn.Module):
    "A host that costs nothing beside reading its images."
    dim = 4
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 16, 16)
    def forward(self, images): return self.layer(images)
    def original_head(self): return nn.Conv2d(4, 1, 1)

def many_images(folder, images):
    "A table of fixations and as many pictures as are asked for, of which only twenty differ."
    (folder/'images').mkdir(parents=True)
    for k in range(20): # noise at the size of a cell, so that the files are small
        cells = np.random.default_rng(k).integers(256, size=(6, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize(SIZE[::-1]).save(folder/f'{k}.jpg')
    for i in range(images): os.link(folder/f'{i % 20}.jpg', folder/f'images/{i:05d}.jpg')
    g = np.random.default_rng(0)
    rows = dict(image=np.repeat([f'{i:05d}' for i in range(images)], 10),
        x=g.uniform(0, SIZE[1], 10 * images),
                y=g.uniform(0, SIZE[0], 10 * images))
    pd.DataFrame(rows).to_csv(folder/'fixations.csv', index=False)
    return folder

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 # GB

def work(folder, images, memory):
    from saliency_nb.hosts import register_host
    from saliency_nb.stages import Analysis
    register_host('small', Small)
    data, before = many_images(folder/'data', images), peak()
    settings = dict(model='small', n_bases=4, epochs=1, epochs2=1, batch=10, accelerator='cpu', memory=memory)
    analysis = Analysis(folder/'run', data, names=False, height=SIZE[0], width=SIZE[1], **settings)
    analysis.phase2()
    if NIGHTLY: analysis.scores() # which takes longer than all the rest
    return dict(before=before, peak=peak(), images=images)

if __name__ == '__main__':
    found = work(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps(found))
