"""Weights and checkpoints as people bring them.

Beside them: maps at the limits of their number types, and values that no training can have.
"""
import math
from argparse import Namespace
from collections import OrderedDict
from itertools import product
import numpy as np, pytest, torch, torchvision
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset
from saliency_nb.bases import build_model, export_authors, load_checkpoint, recipe_text, save_checkpoint
from saliency_nb.core import CheckpointError, DataError, ParameterError
from saliency_nb.backbones import Backbone
from saliency_nb.hosts import register_host
from saliency_nb.weights import read_tensors
from saliency_nb.metrics import EPSILON, auc_borji, auc_judd, cc, information_gain, kld, nss, sauc, sim
from saliency_nb.training import SaliencyTraining, check_training, train

class Spot(nn.Module):
    "The smallest host."
    def __init__(self, dim=4):
        super().__init__()
        self.dim, self.body = dim, nn.Conv2d(3, dim, 3, 2, 1)
    def forward(self, images): return self.body(images)

class Pooled(nn.Module):
    "The image beside its mean, which is normalised over the batch."
    def __init__(self):
        super().__init__()
        self.dim, self.body = 4, nn.Conv2d(3, 4, 3, 2, 1)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    def forward(self, images):
        v = self.body(images)
        return v + self.mean(v)

register_host('spot', Spot)
register_host('pooled', Pooled)

# Backbones: the head is not needed

def classifier(name, classes): # torchvision's, with weights of its own
    torch.manual_seed(1)
    return torchvision.models.get_model(name, num_classes=classes).state_dict()

def renamed(tensors, new):
    return {k.replace('fc.', new).replace('classifier.', new): v for k, v in tensors.items()}

def headless(tensors): return {k: v for k, v in tensors.items() if not k.startswith(('fc.', 'classifier.'))}

HEADS = {
    '365 classes': lambda t: t,
    'no head': headless,
    'another name': lambda t: renamed(t, 'last_linear.'),
    'both names': lambda t: t | {'fc.weight': torch.ones(9, 2), 'classifier.1.weight': torch.ones(9, 3)},
    'one more layer': lambda t: t | {'head.fc.bias': torch.ones(7)},
}

@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('name', ['resnet18', 'squeezenet1_0'])
def test_head_of_a_backbone_is_not_needed(tmp_path, name, head):
    given = classifier(name, 365)
    torch.save(HEADS[head](given), tmp_path/'weights.pth')
    held = Backbone(name, tmp_path/'weights.pth').state_dict()
    found = {k.split('.', 2)[2]: v for k, v in held.items() if k.startswith('stages')}
    prefix = '' if name == 'resnet18' else 'features.'
    assert found and all(torch.equal(v, given[prefix + k]) for k, v in found.items())

@pytest.mark.parametrize('weights', ['resnet34', 'squeezenet1_0', 'part'])
def test_features_of_a_backbone_are_needed_all_and_only(tmp_path, weights):
    given = classifier('resnet18' if weights == 'part' else weights, 365)
    if weights == 'part': del given['layer3.0.conv1.weight']
    torch.save(given, tmp_path/'weights.pth')
    with pytest.raises(CheckpointError, match='does not fit this model'):
        Backbone('resnet18', tmp_path/'weights.pth')

# Checkpoints within checkpoints

STEPS = dict(state={0: dict(step=torch.ones(1), exp_avg=torch.ones(2))}, param_groups=[dict(lr=.1)])
BESIDE = dict(epoch=3, best=.5, args=Namespace(lr=.1, names=['a']), optimizer=STEPS, rng=torch.zeros(3))

def prefixed(tensors, prefix): return {prefix + k: v for k, v in tensors.items()}

def zeroed(tensors): return {k: 0 * v for k, v in tensors.items()}

WRAPPED = {
    'alone': lambda t: t,
    'model beside others': lambda t: BESIDE | dict(model=t),
    'net': lambda t: dict(net=OrderedDict(t)),
    'any name': lambda t: BESIDE | dict(params=t),
    'with an average': lambda t: BESIDE | dict(model_ema=zeroed(t), model_state_dict=t),
    'Lightning': lambda t: dict(state_dict=prefixed(t, 'model.'), hyper_parameters=dict(lr=1)),
    'compiled': lambda t: prefixed(t, '_orig_mod.'),
    'parallel and compiled': lambda t: dict(model=prefixed(t, 'module._orig_mod.')),
    'parallel in Lightning': lambda t: dict(state_dict=prefixed(t, 'model.module.')),
    'running average': lambda t: dict(n_averaged=torch.tensor(5)) | prefixed(t, 'module.'),
}

@pytest.fixture(scope='module')
def authors(tmp_path_factory): # a small DINet under the authors' names
    torch.manual_seed(0)
    model = build_model('dinet', backbone='resnet50', width=8, n_bases=4, upsampling='nearest').eval()
    path = export_authors(model, tmp_path_factory.mktemp('authors')/'model.pth')
    return model, torch.load(path, weights_only=True)

@pytest.mark.parametrize('form', ['model beside others', 'Lightning', 'parallel and compiled'])
def test_checkpoint_of_the_authors_in_another(tmp_path, authors, form):
    model, tensors = authors
    torch.save(WRAPPED[form](tensors), tmp_path/'model.pth')
    back = load_checkpoint(tmp_path/'model.pth').state_dict()
    kept = {k: v for k, v in model.state_dict().items() if not k.endswith('num_batches_tracked')}
    assert all(torch.equal(v, back[k]) for k, v in kept.items())

@pytest.mark.parametrize('form', WRAPPED)
def test_weights_of_a_backbone_in_a_checkpoint(tmp_path, form):
    given = classifier('squeezenet1_0', 10)
    torch.save(WRAPPED[form](given), tmp_path/'weights.pth.tar')
    found = Backbone('squeezenet1_0', tmp_path/'weights.pth.tar')
    assert torch.equal(found.stages[0][0].weight, given['features.0.weight'])

@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'model.', 'module._orig_mod.', 'module.model.'])
@pytest.mark.parametrize('ending', ['.safetensors', '.SafeTensors'])
def test_safetensors_of_ours_with_prefixes(tmp_path, prefix, ending):
    model = build_model('spot', n_bases=3)
    header = safe_open(save_checkpoint(model, tmp_path/'plain.safetensors'), 'pt').metadata()
    save_file(prefixed(model.state_dict(), prefix), tmp_path/f'model{ending}', metadata=header)
    back = load_checkpoint(tmp_path/f'model{ending}').state_dict()
    assert all(torch.equal(v, back[k]) for k, v in model.state_dict().items())

@pytest.mark.parametrize('names', [['model.a', 'modeling'], ['net.a', 'b'], ['model']])
def test_words_of_the_network_itself_stay(tmp_path, names):
    save_file({k: torch.ones(1) for k in names}, tmp_path/'own.safetensors')
    assert sorted(read_tensors(tmp_path/'own.safetensors')) == sorted(names)

class Hostile: # unpickling it would call this
    def __reduce__(self): return exec, ('raise SystemExit',)

ONE = dict(w=torch.ones(1))
REFUSED = {
    'code beside': dict(model=ONE, args=Hostile()),
    'code in a namespace': dict(model=ONE, args=Namespace(a=Hostile())),
    'numpy': dict(model=ONE, best=np.float64(1)),
    'two without a usual name': dict(student=ONE, teacher=dict(w=torch.ones(1))),
    'none': BESIDE,
    'numbers as names': {0: torch.ones(1)},
    'a list': [torch.ones(1)],
    'a whole module': dict(model=nn.Linear(2, 2)),
}

@pytest.mark.parametrize('case', REFUSED)
def test_what_is_no_state_dict_is_one_sentence(tmp_path, case):
    torch.save(REFUSED[case], tmp_path/'file.pth')
    with pytest.raises(CheckpointError) as e: load_checkpoint(tmp_path/'file.pth')
    said = str(e.value)
    assert said.startswith(str(tmp_path/'file.pth')) and said.endswith('.') and '\n' not in said

@pytest.mark.parametrize('note', ['no JSON', '[1]', '{"host": "spot"}', None])
def test_a_checkpoint_of_ours_without_its_recipe(tmp_path, note):
    tensors = prefixed(build_model('spot', n_bases=3).state_dict(), 'model.')
    held = dict(state_dict=tensors, callbacks=dict(History={})) | (dict(saliency_nb=note) if note else {})
    torch.save(held, tmp_path/'last.ckpt')
    words = 'note of how' if note else 'neither a checkpoint'
    with pytest.raises(CheckpointError, match=words): load_checkpoint(tmp_path/'last.ckpt')

# Trainings

class Noise(Dataset):
    "Images of noise with one fixation."
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        g, fixations = torch.Generator().manual_seed(i), torch.zeros(16, 24)
        fixations[i % 16, i % 24] = 1
        density = torch.rand(16, 24, generator=g)
        image = torch.rand(3, 16, 24, generator=g)
        return dict(image=image, fixations=fixations, density=density / density.sum(), id=str(i))

def trainer(**more): return dict(accelerator='cpu', logger=False) | more

def trained(out, host='spot', images=4, **more):
    torch.manual_seed(0)
    phase = more.pop('phase', 1)
    model = build_model(host, n_bases=3, phase=phase)
    options = dict(epochs=1, batch=2, say=lambda _: None, trainer=trainer()) | more
    return train(model, Noise(images), Noise(2), out, **options)

@pytest.mark.parametrize('phase', [0, 1, 2])
def test_last_checkpoint_of_a_training_is_a_model(tmp_path, phase):
    trained(tmp_path, phase=phase)
    model = load_checkpoint(tmp_path/'last.ckpt')
    kept = torch.load(tmp_path/'last.ckpt', weights_only=True)
    assert model.phase == phase and kept['saliency_nb'] == recipe_text(model)
    assert all(torch.equal(v, kept['state_dict'][f'model.{k}']) for k, v in model.state_dict().items())

TRAINERS = [dict(precision='fp16'), dict(precision='half'), dict(accumulate_grad_batches=0),
            dict(gradient_clip_val=-1.), dict(devices=0), dict(strategy='none')]
WRONG = [
    dict(lr=math.nan), dict(lr=-1), dict(lr=0), dict(lr=math.inf), dict(lr='1e-4'),
    dict(lr_factor=-.1), dict(lr_every=0), dict(weight_decay=-1.),
    dict(epochs=0), dict(epochs=-1), dict(epochs=1.5), dict(patience=-1),
    dict(batch=0), dict(batch=5), dict(batch=1.5),
    *[dict(trainer=trainer(**options)) for options in TRAINERS],
]

@pytest.mark.parametrize('wrong', WRONG, ids=str)
def test_values_that_no_training_can_have(tmp_path, wrong):
    (tmp_path/'last.ckpt').touch()
    with pytest.raises(ParameterError) as e: trained(tmp_path, **wrong)
    assert str(e.value).endswith('.') and '\n' not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ['last.ckpt'], 'something was done before'

STEPLESS = [dict(lr=math.nan), dict(lr=0), dict(lr_every=.5), dict(weight_decay=math.inf)]

@pytest.mark.parametrize('wrong', STEPLESS, ids=str)
def test_values_that_no_step_can_have(wrong):
    with pytest.raises(ParameterError): SaliencyTraining(build_model('spot', n_bases=3), **wrong)

def test_sensible_values_pass():
    check_training(lr=np.float32(.1), epochs=np.int64(3), batch=2, images=2, precision=16, clip=0, patience=0,
                   workers=None, flip=False)
    for precision in ('32', '32-true', 'bf16-mixed', '16-mixed', None): check_training(precision=precision)
    for precision in ('fp16', 'float16', 8):
        with pytest.raises(ParameterError, match='16-mixed.*bf16-mixed'): check_training(precision=precision)

@pytest.mark.parametrize('phase', [0, 1])
def test_batch_of_one_where_a_normalisation_needs_two(tmp_path, phase):
    with pytest.raises(ParameterError, match='batch = 1'):
        trained(tmp_path/'new', 'pooled', phase=phase, batch=1)
    assert not (tmp_path/'new').exists()

@pytest.mark.parametrize('host, images, more', [
    ('pooled', 5, {}),
    ('pooled', 4, dict(batch=1, phase=2)),
    ('spot', 2, dict(batch=1, phase=1)),
    ('spot', 2, dict(batch=1, phase=0)),
], ids=str)
def test_batch_of_one_where_nothing_needs_two(tmp_path, host, images, more):
    "A last batch that is not full is left out; in phase 2 the frozen part does not normalise over the batch."
    before = torch.get_num_threads()
    torch.set_num_threads(1) # torch chooses other convolutions then
    try: trained(tmp_path, host, images, **more)
    finally: torch.set_num_threads(before)
    assert load_checkpoint(tmp_path/'last.ckpt').phase == more.get('phase', 1)

# Metrics

LIMITS = dict( # kind -> number type, power of two
    float32=(torch.float32, 127),
    float16=(torch.float16, 15),
    bfloat16=(torch.bfloat16, 127),
    float64=(torch.float64, 1023),
    tiny=(torch.float64, -900),
    tiny32=(torch.float32, -120),
)
KINDS = list(LIMITS)

def extremes(kind):
    "Saliency (2, 5, 7) with ties, and the same in float64 at an ordinary size."
    g = torch.Generator().manual_seed(3)
    plain = torch.randint(-8, 9, (2, 5, 7), generator=g).double() / 8
    plain[:, 0, 0], plain[:, 0, 1] = 1, -1
    dtype, power = LIMITS[kind]
    return (plain * 2.**power).to(dtype), plain

def brute(s, f, negatives):
    "Probability that a fixated pixel has more than another, ties one half."
    pairs = product(s[f > 0].tolist(), s[negatives].tolist())
    return np.mean([(a > b) + (a == b) / 2 for a, b in pairs])

@pytest.mark.parametrize('kind', KINDS)
def test_auc_of_maps_at_the_limits_of_their_type(kind):
    s, plain = extremes(kind)
    f = (torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(5)) < .3).int()
    others = f.flip(-1)
    assert np.allclose(auc_judd(s, f), [brute(*m, m[1] == 0) for m in zip(plain, f)])
    assert np.allclose(auc_borji(s, f), [brute(*m, m[1] >= 0) for m in zip(plain, f)])
    assert np.allclose(sauc(s, f, others), [brute(*m[:2], m[2] > 0) for m in zip(plain, f, others)])

@pytest.mark.parametrize('kind', KINDS)
def test_scores_of_maps_at_the_limits_of_their_type(kind):
    s, plain = extremes(kind)
    f, q = (plain > .4).int(), plain.flip(-1).abs()
    for row in range(2):
        m, d = plain[row].numpy(), q[row].numpy()
        on = f[row].numpy() > 0
        assert np.isclose(cc(s, q)[row], np.corrcoef(m.ravel(), d.ravel())[0, 1])
        assert np.isclose(nss(s, f)[row], ((m - m.mean()) / m.std(ddof=1))[on].mean())
        p, d = abs(m) / abs(m).sum(), d / d.sum()
        assert np.isclose(sim(s.abs(), q)[row], np.minimum(p, d).sum())
        assert np.isclose(sim(q, s.abs())[row], np.minimum(p, d).sum())
        divergence = (d * np.log(EPSILON + d / (EPSILON + p))).sum()
        assert np.isclose(kld(s.abs(), q)[row], divergence, rtol=1e-6)
        gain = np.log2((d + EPSILON) / (p + EPSILON))[on].mean()
        assert np.isclose(information_gain(q, f, s[row].abs())[row], gain, rtol=1e-6)

@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('kind', KINDS[:4])
def test_not_finite_at_the_limits(kind, value):
    s, _ = extremes(kind)
    s[0, 1, 1] = value
    with pytest.raises(DataError, match='NaN or infinity'): auc_judd(s, torch.ones(2, 5, 7))

@pytest.mark.parametrize('shape', [(2, 0, 4), (1, 3, 0)])
def test_maps_without_pixels(shape):
    for metric in (cc, auc_judd, kld):
        with pytest.raises(DataError, match='cannot be compared'):
            metric(torch.zeros(shape), torch.zeros(shape))
