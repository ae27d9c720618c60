"Regions and maps that are given: dissection and effects without pictures and without a network."
import cv2, numpy as np, pytest
from saliency_nb import dissection
from saliency_nb.dissection import Batch
from saliency_nb.regions import BoxRegions, Regions
from saliency_nb.world import log_density, named_boxes

def not_empty(there): return {name: m for name, m in there.items() if m.any()}

class Given(Regions):
    "Regions given as arrays, a dictionary per image; empty ones are left out."
    def __init__(self, found):
        found = list(map(not_empty, found))
        images = {f'image_{i}': '' for i in range(len(found))}
        super().__init__(images, sorted(set().union(*found)), [])
        self.found = found

    def masks(self, i, grid):
        there = self.found[int(i.split('_')[1])]
        return list(there), np.array(list(there.values()), bool).reshape(-1, *grid)

@pytest.fixture
def no_pictures(monkeypatch):
    "Maps are given; nothing is read."
    monkeypatch.setattr(dissection, 'read_image', lambda path, size: None)

def batch_of(probe, logits, parts, positions):
    "What a forward pass would make of given maps; parts None: the activations are the parts."
    at = list(map(int, positions))
    lift = (lambda activations: activations) if parts is None else (lambda activations: parts[at])
    return Batch([probe[i] for i in at], logits[at], lift)

def boxed(scenes, names, size):
    "Scenes' boxes as regions; size: their height and width."
    found = BoxRegions(dict.fromkeys(scenes), sorted(names), [])
    index = {n: k for k, n in enumerate(found.semantics)}
    found.boxes = {i: rows_and_corners(s, index, size) for i, s in scenes.items()}
    return found

def rows_and_corners(scene, index, size):
    "Rows of the names, and left, top, right and bottom as shares of the scene."
    names, boxes = zip(*named_boxes(scene))
    start, extent = np.split(np.array(boxes, float), 2, axis=1)
    corners = np.hstack([start, start + extent])
    return np.array([index[n] for n in names]), corners / (size[::-1] * 2)

def density_on(grid, scene, weights):
    "A scene's log density with these weights."
    values = log_density(scene, weights).astype(np.float32)
    return cv2.resize(values, grid[::-1], interpolation=cv2.INTER_AREA)
