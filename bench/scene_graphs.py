"""Load a generated scene graph of GQA's size: how long it takes, and how much memory.

    python bench/scene_graphs.py [images]

75,000 images with about 16 objects each, GQA's names (from the package's table, frequent ones often),
attributes and relations: about 310 MB of JSON. The images are empty files, because a reader of boxes only
needs their names. Loading runs in a process of its own, so that its peak memory is its own. The numbers are
printed and written to bench/scene_graphs.json.
"""
import json, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
from saliency_nb.core import write_json
from saliency_nb.vocabulary import table

def frequencies(names):
    "Probabilities that fall as one over the rank."
    p = 1 / np.arange(1, len(names) + 1)
    return p / p.sum()

def names_of(kind, seed):
    "GQA's names of a kind, in random order."
    t = table('categories')
    own = t[(t.kind == kind) & t.source.str.contains('gqa')]
    return own.name.str.replace('_', ' ').sample(frac=1, random_state=seed).to_list()

def described(g, first, attributes, often):
    "Relations and attributes of an object."
    relations = [dict(object=str(first + int(r)), name='to the left of') for r in g.integers(0, 16, 3)]
    chosen = g.choice(len(attributes), g.poisson(.6), p=often)
    return dict(relations=relations, attributes=[attributes[a] for a in chosen])

def scene_graph(g, first, objects, attributes, often):
    "One image."
    count, size = g.poisson(16), g.integers(300, 641, 2)
    corner, side = g.random((count, 2)) * (size - 20), g.integers(5, 200, (count, 2))
    found = {}
    for j, o in enumerate(g.choice(len(objects), count, p=often[0])):
        box = dict(zip('xywh', map(int, (*corner[j], *side[j]))))
        found[str(first + j)] = dict(name=objects[o]) | box | described(g, first, attributes, often[1])
    return dict(width=int(size[0]), height=int(size[1]), objects=found)

def write_graphs(path, n, seed=0):
    "A JSON file in GQA's format, written image by image."
    g, objects = np.random.default_rng(seed), names_of('object', seed)
    attributes = names_of('attribute', seed)
    often = [frequencies(names) for names in (objects, attributes)]
    with open(path, 'w') as f:
        for k in range(n):
            graph = scene_graph(g, 1000000 + 40 * k, objects, attributes, often)
            f.write(('{' if k == 0 else ', ') + f'"{2300000 + k}": {json.dumps(graph)}')
        f.write('}')

LOAD = '''
import json, resource, sys, time
from saliency_nb.scene_graphs import gqa_regions
def peak(): return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
before = peak()
start, cpu = time.perf_counter(), time.process_time()
r = gqa_regions(sys.argv[1], sys.argv[2])
found = dict(seconds=round(time.perf_counter() - start, 1), cpu_seconds=round(time.process_time() - cpu, 1))
found |= dict(peak_gb=peak(), peak_gb_before=before, images=len(r))
found |= dict(boxes=sum(len(n) for n, _ in r.boxes.values()), semantics=len(r.semantics))
print(json.dumps(found))
'''

if __name__ == '__main__':
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 75000
    with tempfile.TemporaryDirectory() as folder:
        path, images = Path(folder)/'train_sceneGraphs.json', Path(folder)/'images'
        images.mkdir()
        for k in range(n): (images/f'{2300000 + k}.jpg').touch()
        write_graphs(path, n)
        command = [sys.executable, '-c', LOAD, str(path), str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = dict(file_mb=path.stat().st_size // 10**6) | json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    if n == 75000: write_json(found, Path(__file__).with_suffix('.json'))
