"The host readout in a run: one training, every stage after it, and published hosts on a backbone of timm."
import numpy as np, pandas as pd, pytest, torch
from saliency_nb.bases import ReadoutSaliency, basis_saliency
from saliency_nb.contributions import routes
from saliency_nb.dissection import batch_of, open_probe
from saliency_nb.explain import explain
from saliency_nb.stages import Analysis
from saliency_nb.calibration import logit_maps
from saliency_nb.world import make_world

SMALL = dict(height=64, width=96, features=8, n_bases=32, epochs=2, epochs2=1, lr=.02, batch=4, control=False, min_images=1, accelerator='cpu', backbone='timm:mobilenetv3_small_050')

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('runs')/'world', n_images=24, size=(64, 96), seed=0)

def logit_of(model, image):
    with torch.no_grad(): return model.saliency_logits(model.activations(image[None]))[0]

def check_split(model, analysis, probe):
    "With the position prior beside the bases, the contrast of the log density is split without a rest."
    alignment, items = analysis.dissection(), [probe[i] for i in range(len(probe))]
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

def test_a_run_of_the_readout(world, tmp_path):
    analysis = Analysis(data=world, out=tmp_path/'run', model='readout', **SMALL)
    alignment = analysis.dissection()
    models = analysis.models()
    model = models['phase 2']
    assert list(models) == ['phase 2'] and isinstance(model, ReadoutSaliency) and model.to_phase2() is model
    assert alignment.sizes['basis'] == 32 and set(analysis.scores().index.unique('model')) == {'phase 2'}
    assert not (tmp_path/'run/phase2/metrics.csv').exists()
    z, _ = logit_maps(model, analysis.loaded('select'))
    image = analysis.loaded('select')[0]['image'][None]
    with torch.no_grad(): parts = basis_saliency(model, model.activations(image)).sum(1) + model.position_prior(z.shape[1:])
    assert torch.allclose(parts[0].double(), z[0], atol=1e-4)
    maps = explain(model, image[0], alignment)
    assert maps.semantic.values[-1] == 'position'
    assert np.allclose(maps.sum('semantic'), alignment.tau * z[0], atol=1e-3) # the dissection takes the model's own activations
    assert model.position.std() > 0 and np.isfinite(analysis.calibration()['network']['bits'])
    probe = open_probe(model, analysis.found.regions, analysis.size)
    batch = batch_of([probe[0]], model)
    assert torch.equal(batch.activations, model.activate(batch.logits)) and (batch.activations == 0).any() # sparse
    check_split(model, analysis, probe)
    written = (tmp_path/'run/phase1/best.safetensors').stat().st_mtime_ns
    Analysis(data=world, out=tmp_path/'run', model='readout', **SMALL).phase2()
    assert (tmp_path/'run/phase1/best.safetensors').stat().st_mtime_ns == written # nothing is trained again

def test_a_published_host_on_a_backbone_of_timm(world, tmp_path):
    analysis = Analysis(data=world, out=tmp_path/'run', model='dinet', **SMALL | dict(epochs=1))
    assert list(analysis.models()) == ['phase 1', 'phase 2']
