"Regions and maps that are given: dissection without pictures and without a network."
import numpy as np, pytest
from saliency_nb import dissection
from saliency_nb.dissection import Batch
from saliency_nb.regions import Regions

class Given(Regions):
    "Regions given as arrays, a dictionary per image."
    def __init__(self, found):
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
