"Several trainings on the same images: the seed of the training and that of the data are two things."
import numpy as np, pytest
from saliency_nb.uncertainty import contrast_differences, over_seeds
from saliency_nb.runs import Analysis
from saliency_nb.world import make_world

TINY = dict(height=64, width=96, features=8, n_bases=8, epochs=1, epochs2=1, batch=4, control=False, min_images=1, accelerator='cpu')

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('seeds')/'world', n_images=48, size=(64, 96), seed=0)

def ids(analysis): return [s.ids for s in (analysis.found.train, analysis.found.select, analysis.found.val)]

def test_one_data_seed_means_the_same_images(world, tmp_path):
    runs = [Analysis(out=tmp_path/str(s), data=world, seed=s, **TINY) for s in (0, 1, 2)]
    assert ids(runs[0]) == ids(runs[1]) == ids(runs[2])
    other = Analysis(out=tmp_path/'other', data=world, seed=0, data_seed=1, **TINY)
    assert ids(other)[:2] != ids(runs[0])[:2]
    found = [a.dissection() for a in runs[:2]]
    assert not np.allclose(*(a.contrast for a in found)) # two trainings
    over = over_seeds(found, replicates=50)
    assert np.isfinite(over.contrast).all() and set(contrast_differences(*found).index) == set(over.index)
