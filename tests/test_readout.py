"The host readout in a run: one training, every stage after it, and published hosts on a backbone of timm."
import numpy as np, pandas as pd, pytest, torch
from saliency_nb.bases import ReadoutSaliency, basis_saliency
from saliency_nb.contributions import routes
from saliency_nb.dissection import batch_of, open_probe
from saliency_nb.explain import explain
from saliency_nb.stages import Analysis
from saliency_nb.calibration import logit_maps
from saliency_nb.world import make_world

SMALL = dict(height=64, width=96, features=8, n_bases=32, epochs=2, epochs2=1, lr=.02, batch=4, control=False,
             min_images=1, accelerator='cpu', backbone='timm:mobilenetv3_small_050')

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('runs')/'world', n_images=24, size=(64, 96), seed=0)

@pytest.fixture(scope='module')
def analysis(world, tmp_path_factory):
    analysis = Analysis(data=world, out=tmp_path_factory.mktemp('readout')/'run', model='readout', **SMALL)
    analysis.dissection()
    return analysis

def logit_of(model, image):
    with torch.no_grad(): return model.saliency_logits(model.activations(image[None]))[0]

def test_a_run_of_the_readout(analysis):
    models = analysis.models()
    model = models['phase 2']
    assert list(models) == ['phase 2'] and isinstance(model, ReadoutSaliency) and model.to_phase2() is model
    assert analysis.dissection().sizes['basis'] == 32
    assert set(analysis.scores().index.unique('model')) == {'phase 2'}
    assert not (analysis.run/'phase2/metrics.csv').exists()
    assert model.position.std() > 0 and np.isfinite(analysis.calibration()['network']['bits'])

def test_bases_and_position_sum_to_the_logit(analysis):
    model, alignment = analysis.models()['phase 2'], analysis.dissection()
    z, _ = logit_maps(model, analysis.loaded('select'))
    image = analysis.loaded('select')[0]['image'][None]
    with torch.no_grad():
        parts = basis_saliency(model, model.activations(image)).sum(1) + model.position_prior(z.shape[1:])
    assert torch.allclose(parts[0].double(), z[0], atol=1e-4)
    maps = explain(model, image[0], alignment)
    assert maps.semantic.values[-1] == 'position'
    assert np.allclose(maps.sum('semantic'), alignment.tau * z[0], atol=1e-3)

def test_the_dissection_takes_the_models_own_activations(analysis):
    model = analysis.models()['phase 2']
    probe = open_probe(model, analysis.found.regions, analysis.size)
    batch = batch_of([probe[0]], model)
    assert torch.equal(batch.activations, model.activate(batch.logits))
    assert (batch.activations == 0).any() # sparse

def test_the_contrast_of_the_log_density_is_split_without_a_rest(analysis):
    "With the position prior beside the bases."
    model, alignment = analysis.models()['phase 2'], analysis.dissection()
    probe = open_probe(model, analysis.found.regions, analysis.size)
    items = [probe[i] for i in range(len(probe))]
    maps = torch.stack([alignment.tau * logit_of(model, item[2]) for item in items])
    whole = batch_of(items, model).own.contrast(maps[:, None])[:, 0].numpy()
    names = [probe.regions.semantics[s] for item in items for s in item[3][0]]
    seen = pd.Series(whole).groupby(names).mean()[alignment.semantic.values]
    assert alignment.prior.std() > 0
    assert np.allclose(alignment.contrast.sum('basis') + alignment.prior, seen, atol=1e-3)
    split = routes(alignment)
    assert split.index[-1] == 'position' and np.allclose(split.sum(), seen, atol=1e-3)
    table = analysis.contributions().set_index('semantic')
    assert np.allclose(table.prior[seen.index], alignment.prior, atol=1e-6)

def test_a_readout_is_not_trained_again(analysis, world):
    checkpoint = analysis.run/'phase1/best.safetensors'
    written = checkpoint.stat().st_mtime_ns
    Analysis(data=world, out=checkpoint.parents[1], model='readout', **SMALL).phase2()
    assert checkpoint.stat().st_mtime_ns == written

def test_a_published_host_on_a_backbone_of_timm(world, tmp_path):
    analysis = Analysis(data=world, out=tmp_path/'run', model='dinet', **SMALL | dict(epochs=1))
    assert list(analysis.models()) == ['phase 1', 'phase 2']
