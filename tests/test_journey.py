"""The journey of somebody who has only the README.

They have a table of fixations, photographs, COCO regions and a network of their own.
One user, one folder, one command after the other; no step reads a notebook.
"""
import json
from pathlib import Path
import pandas as pd, pytest
from saliency_nb import cli
from saliency_nb.core import read_json
from saliency_nb.fixations import read_salicon
from saliency_nb.hosts import HOSTS
from saliency_nb.world import make_world, named_boxes

NETWORK = '''import torch
from torch import nn
from saliency_nb.hosts import register_host

class Mine(nn.Module):
    dim, size = 8, (96, 128)
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
        self.head = nn.Conv2d(8, 1, 1)
        torch.manual_seed(0) # in place of a file of weights
        for p in self.parameters(): p.data = torch.randn_like(p) / max(p[0].numel(), 2)**.5
    def forward(self, images): return self.layers(images)
    def trained_readout(self): return self.head

register_host('mine', Mine)
'''

def instances(scenes, images):
    "Named boxes as COCO's instances."
    names = sorted({name for scene in scenes.values() for name, _ in named_boxes(scene)})
    data = dict(images=[], annotations=[], categories=[dict(id=k, name=n) for k, n in enumerate(names, 1)])
    for number, (image, scene) in enumerate(scenes.items(), 1):
        height, width = scene['size']
        data['images'].append(dict(id=number, file_name=f'{image}.jpg', height=height, width=width))
        for name, (x, y, w, h) in named_boxes(scene):
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            known = dict(image_id=number, category_id=names.index(name) + 1, bbox=[x, y, w, h], area=w * h)
            number_of_it = len(data['annotations']) + 1
            data['annotations'].append(known | dict(id=number_of_it, segmentation=[corners], iscrowd=0))
    return data

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "mine/: a table of fixations, images/ and coco.json; network.py."
    home = tmp_path_factory.mktemp('journey')
    root = make_world(home/'world', n_images=40, size=(96, 128), seed=0)
    data, scenes = home/'mine', read_json(root/'scenes.json')
    (data/'images').mkdir(parents=True)
    tables = []
    for split in ('train', 'val'):
        seen = read_salicon(root, split)
        tables.append(seen.fixations)
        for path in map(Path, seen.images.path): path.rename(data/'images'/path.name)
    table = pd.concat(tables)[['image', 'observer', 'x', 'y']]
    table.to_csv(data/'fixations.csv', index=False)
    (data/'coco.json').write_text(json.dumps(instances(scenes, data/'images')))
    (home/'network.py').write_text(NETWORK)
    yield home
    HOSTS.pop('mine', None)

@pytest.fixture
def step(home, monkeypatch, capsys):
    "A command, given in the user's folder; what it says."
    monkeypatch.chdir(home)
    def step(line):
        code = cli.main(line.split())
        said = capsys.readouterr()
        assert code == 0 and 'Traceback' not in said.out + said.err, said.err
        return said.out
    return step

def test_the_journey(home, step):
    assert 'saliency-nb run' in step('check-data mine --out checked')
    assert (home/'checked').is_dir()
    step('people mine --probe mine/coco.json --out people')
    assert len(pd.read_csv(home/'people/people.csv')) > 5
    options = '--n-bases 8 --accelerator cpu --batch 4 --min-images 1'
    said = step(f'fit network.py --data mine --out runs/mine {options}')
    assert 'of the variance' in said
    step('dissect runs/mine --plugin network.py --probe mine/coco.json')
    step('contributions runs/mine --plugin network.py')
    table = pd.read_csv(home/'runs/mine/contributions.csv')
    assert len(table) > 5 and table.contrast.notna().all()
    step('predict mine/images --model runs/mine --plugin network.py --out maps --format npy')
    assert len(list((home/'maps').rglob('*.npy'))) == 40
    said = step('score maps --data mine')
    assert 'observers' in said and 'nss' in said
    picture = sorted((home/'mine/images').glob('*.jpg'))[0]
    step(f'explain {picture} --model runs/mine --plugin network.py --out explained --at 64,48')
    assert list((home/'explained').rglob('*.html'))
