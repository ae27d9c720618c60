"""Load a generated scene graph of GQA's size and say how long it takes and how much memory: python bench/scene_graphs.py [images]

75,000 images with about 16 objects each, GQA's names (from the package's table, frequent ones often), attributes and relations: about 310 MB of JSON. The
images are empty files, because a reader of boxes only needs their names. Loading runs in a process of its own, so that its peak memory is its own. The
numbers are printed and written to bench/scene_graphs.json.
"""
import json, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
from saliency_nb.core import write_json
from saliency_nb.vocabulary import table

def write_graphs(path, n, seed=0):
    "A JSON file in GQA's format, written image by image."
    g, t = np.random.default_rng(seed), table('categories')
    objects, attributes = (t[(t.kind == k) & t.source.str.contains('gqa')].name.str.replace('_', ' ').sample(frac=1, random_state=seed).to_list() for k in ('object', 'attribute'))
    often = [1 / np.arange(1, len(names) + 1) for names in (objects, attributes)]
    often = [p / p.sum() for p in often]
    with open(path, 'w') as f:
        for k in range(n):
            count, (W, H), first = g.poisson(16), g.integers(300, 641, 2), 1000000 + 40 * k
            corner, side = g.random((count, 2)) * [W - 20, H - 20], g.integers(5, 200, (count, 2))
            graph = dict(width=int(W), height=int(H), objects={str(first + j): dict(name=objects[o], x=int(x), y=int(y), w=int(w), h=int(h),
                relations=[dict(object=str(first + int(r)), name='to the left of') for r in g.integers(0, 16, 3)], attributes=[attributes[a] for a in g.choice(len(attributes), g.poisson(.6), p=often[1])])
                for j, (o, (x, y), (w, h)) in enumerate(zip(g.choice(len(objects), count, p=often[0]), corner, side))})
            f.write(('{' if k == 0 else ', ') + f'"{2300000 + k}": {json.dumps(graph)}')
        f.write('}')

LOAD = '''
import json, resource, sys, time
from saliency_nb.scene_graphs import gqa_regions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, cpu = time.perf_counter(), time.process_time()
r = gqa_regions(sys.argv[1], sys.argv[2])
print(json.dumps(dict(seconds=round(time.perf_counter() - start, 1), cpu_seconds=round(time.process_time() - cpu, 1), peak_gb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    peak_gb_before=round(before / 2**20, 2), images=len(r), boxes=sum(len(n) for n, _ in r.boxes.values()), semantics=len(r.semantics))))
'''

if __name__ == '__main__':
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 75000
    with tempfile.TemporaryDirectory() as folder:
        path, images = Path(folder)/'train_sceneGraphs.json', Path(folder)/'images'
        images.mkdir()
        for k in range(n): (images/f'{2300000 + k}.jpg').touch()
        write_graphs(path, n)
        done = subprocess.run([sys.executable, '-c', LOAD, str(path), str(images)], capture_output=True, text=True, check=True)
        found = dict(file_mb=path.stat().st_size // 10**6) | json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    if n == 75000: write_json(found, Path(__file__).with_suffix('.json'))
