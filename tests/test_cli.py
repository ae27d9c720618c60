"""The command line as a user meets it: broken data, kill -9, strangers' hosts, and papermill by hand.

Starting a process takes longer than what most commands do here, so one test of each kind starts real ones and
the others call `main`."""
import io, json, os, shutil, signal, subprocess, sys, time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from safetensors.torch import load_file
from scipy.io import savemat
from crash import is_locked
from notebooks import in_this_process # noqa: F401 - a fixture
from saliency_nb.bases import build_model, export_authors
from saliency_nb.chance import FEWEST
from saliency_nb.cli import given, main, parser
from saliency_nb.stages import Analysis
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1')
SMALL = '--preset tiny --height 96 --width 128 --features 16 --n-bases 16'.split()
SMALL += '--epochs 3 --epochs2 1 --accelerator cpu'.split()
DINET = ['--model', 'dinet', *SMALL]
STAGES = 'models scores calibration thresholds dissection units contributions controls people'.split()

def command(*arguments): return [sys.executable, '-m', 'saliency_nb.cli', *map(str, arguments)]

def process(*arguments):
    return subprocess.run(command(*arguments), env=ENV, capture_output=True, text=True, timeout=600)

def written(make):
    "What a function gives, with what it writes."
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err): code = make()
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

def done(*arguments):
    "A command in this process; a notebook has its own, as always."
    return written(lambda: main([str(a) for a in arguments]))

def every_stage(*arguments):
    "The stages of a run in the order of its notebook, without its figures."
    def make():
        args = parser().parse_args([str(a) for a in ('contributions', *arguments)])
        analysis = Analysis(**given(args, args.model, args.out))
        for stage in STAGES: getattr(analysis, stage)()
        return 0
    return written(make)

@pytest.fixture(autouse=True, scope='module')
def own_package():
    "Kernels that are started import the package of this checkout."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(ROOT))
        yield

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('cli')/'world', n_images=48, size=(96, 128), seed=0)

# broken data: each harm gives the name that has to be said

def nth(root, folder, n): return sorted((root/folder).iterdir())[n]

def missing_images(root):
    shutil.rmtree(root/'images/train')
    return 'images/train'

def corrupt_jpeg(root):
    p = nth(root, 'images/train', 3)
    p.write_bytes(p.read_bytes()[:900])
    return p.name

def without_fixations(root):
    p = nth(root, 'fixations/train', 2)
    savemat(p, dict(gaze=np.zeros(0, [('fixations', object)]), resolution=[96, 128]))
    return p.name

def missing_partner(root):
    p = nth(root, 'fixations/val', 0)
    p.unlink()
    return p.name

def empty_graph(root):
    (root/'scene_graphs.json').write_text('{}')
    return 'scene_graphs.json'

def truncated_json(root):
    p = root/'scene_graphs.json'
    p.write_text(p.read_text()[:2000])
    return p.name

def wrong_size(root):
    p = nth(root, 'images/val', 1)
    Image.new('RGB', (64, 64)).save(p)
    return p.name

def broken_mat(root):
    p = nth(root, 'fixations/train', 5)
    p.write_bytes(b'MATLAB 5.0')
    return p.name

HARMS = [missing_images, corrupt_jpeg, without_fixations, missing_partner]
HARMS += [empty_graph, truncated_json, wrong_size, broken_mat]

def is_one_line(err): return len(err.strip().splitlines()) == 1

def names(err, name):
    "Whether the one line of an error names it."
    return is_one_line(err) and err.startswith('saliency-nb: ') and name in err

@pytest.mark.parametrize('harm', HARMS, ids=lambda f: f.__name__)
def test_broken_data_is_one_sentence(world, tmp_path, harm, capsys):
    root = shutil.copytree(world, tmp_path/'world')
    name = harm(root)
    code = main(['contributions', '--data', str(root), '--out', str(tmp_path/'run'), *DINET])
    said = capsys.readouterr()
    assert code == 1 and names(said.err.strip(), name) and said.err.strip().endswith('.'), said.err
    assert 'Traceback' not in said.out and not (tmp_path/'run/phase1').exists()

IMPOSSIBLE = dict(model='resnet', backbone='vgg', quantile='1.5')
IMPOSSIBLE |= dict(weights='nowhere.pth', batch='1000')

@pytest.mark.parametrize('arguments', [[f'--{k}', v] for k, v in IMPOSSIBLE.items()], ids=lambda a: a[0])
def test_impossible_parameters_are_one_sentence(world, tmp_path, arguments, capsys):
    code = main(['contributions', '--data', str(world), '--out', str(tmp_path/'run'), *DINET, *arguments])
    said = capsys.readouterr()
    assert code == 1 and is_one_line(said.err) and 'Traceback' not in said.out + said.err, said.err
    assert not (tmp_path/'run/phase1').exists()

def test_a_run_in_its_notebook_ends_in_one_sentence_too(world, tmp_path):
    "A fault of the data inside the kernel that papermill starts, in real processes."
    root = shutil.copytree(world, tmp_path/'world')
    name = corrupt_jpeg(root)
    r = process('run', '--data', root, '--out', tmp_path/'run', *DINET)
    assert r.returncode == 1 and names(r.stderr.strip(), name), r.stderr
    assert 'Traceback' not in r.stdout + r.stderr

# runs

def killed_in_training(out, *arguments):
    "Start a run, end it in the second epoch, and wait until its kernel has noticed."
    start = command('run', '--out', out, *arguments)
    victim = subprocess.Popen(start, env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in victim.stdout:
        if 'phase 1, epoch 2/3' in line: break
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    until = time.monotonic() + 30
    time.sleep(1)
    while is_locked(out):
        assert time.monotonic() < until, 'the kernel has outlived its parent'
        time.sleep(.1)

def largest_difference(run, other, phase):
    "Of all weights of two runs."
    a, b = (load_file(folder/phase/'best.safetensors') for folder in (run, other))
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)

def test_killed_run_goes_on_and_ends_the_same(world, tmp_path):
    whole = every_stage('--data', world, '--out', tmp_path/'whole', *DINET)
    assert whole.returncode == 0, whole.stderr
    killed_in_training(tmp_path/'killed', '--data', world, *DINET)
    options = '--data', world, '--out', tmp_path/'killed', *DINET
    again = every_stage(*options)
    assert again.returncode == 0, again.stderr
    assert 'phase 1, epoch 1/3' not in again.stdout, 'started from nothing'
    for phase in ('phase1', 'phase2'):
        assert largest_difference(tmp_path/'whole', tmp_path/'killed', phase) < 1e-6
    tables = [pd.read_csv(tmp_path/run/'contributions.csv').round(4) for run in ('whole', 'killed')]
    assert tables[0].equals(tables[1])
    third = every_stage(*options)
    assert third.stdout.count('not made again') == 10, third.stdout # every stage
    other = every_stage(*options, '--quantile', '0.9')
    # training, scores, calibration, people and units are unchanged, thresholds and what follows are not
    assert other.stdout.count('not made again') == 6, other.stdout

CONTROLS = {'untrained.nc', 'shuffled.nc', 'shuffled', 'untrained_adjusted.nc', 'shuffled_adjusted.nc'}
RECORDED = {'phase1', 'phase2', 'scores', 'calibration', 'thresholds', 'dissection', 'contributions'}
RECORDED |= {'people', 'units'}
FIGURES = {'people.png', 'controls.png', 'controls_adjusted.png', 'explained.png', 'categories.png'}

def files(folder): return {f.name for f in folder.iterdir()}

@pytest.fixture(scope='module')
def two_models(world, tmp_path_factory):
    "Two models with all controls, each in a kernel of its own: their folder, and what was said."
    out = tmp_path_factory.mktemp('models')
    shape = *SMALL, '--epochs', '1', '--shuffled', 'true'
    return out, done('run', '--model', 'dinet', 'transalnet', '--data', world, '--out', out, *shape)

def test_control_on_the_fixations_of_other_images(two_models):
    out, r = two_models
    assert r.returncode == 0, r.stderr
    run = out/'dinet'
    summary = json.loads((run/'summary.json').read_text())
    assert files(run/'controls') == CONTROLS
    assert summary['shuffled'].keys() == summary['untrained'].keys() == summary['spearman'].keys()
    record = json.loads((run/'run.json').read_text())
    assert record['parameters']['epochs'] == 1 and set(record['stages']) >= RECORDED
    assert record['versions']['torch'] == torch.__version__.split('+')[0]
    marked = pd.read_csv(run/'controls.csv').fillna(dict(not_beaten=''))
    assert (marked.not_beaten != '').groupby(marked.claim).sum().to_dict() == summary['not_beaten']
    assert {'untrained', 'shuffled', 'position', 'random names'} <= set(marked)
    assert pd.read_csv(run/'people.csv').n_images.gt(0).all() and FIGURES <= files(run/'figures')
    assert summary['units']['open'] is False and len(pd.read_csv(run/'units.csv'))
    shown = (run/'model.html').read_text()
    assert 'what follows is descriptive' in shown # hardly trained: the gate is shut
    assert 'claims beat all controls' in shown
    assert 'times as dense as people' in shown or 'No thing is over- or under-weighted' in shown

@pytest.mark.usefixtures('in_this_process')
def test_models_side_by_side(two_models, tmp_path):
    out, r = two_models
    assert r.returncode == 0, r.stderr
    said = [line for line in r.stdout.splitlines() if line.startswith('report: ')]
    pages = [out/name for name in ('dinet/model.html', 'transalnet/model.html', 'compare_models.html')]
    assert said == [f'report: {p}' for p in pages] and all(p.is_file() for p in pages)
    shown = pages[-1].read_text()
    assert all(name in shown for name in ('dinet', 'transalnet', 'information_gain', 'Spearman'))
    assert 'two halves of the observers' in shown # beside people
    missing = done('compare', out/'dinet', out/'nowhere', '--out', tmp_path/'three')
    assert missing.returncode == 1 and is_one_line(missing.stderr) and 'nowhere' in missing.stderr
    alone = done('compare', out/'dinet', '--out', tmp_path/'alone')
    assert alone.returncode == 0 and (tmp_path/'alone/compare_models.html').is_file(), alone.stderr
    assert 'two halves of the observers' in alone.stdout

PLUGIN = '''from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large as lraspp
from saliency_nb.hosts import register_host

class Lraspp(nn.Module): # a segmentation network this project knows nothing about
    dim = 960
    def __init__(self):
        super().__init__()
        self.backbone = lraspp(weights=None, weights_backbone=None).backbone
    def forward(self, images): return self.backbone(images)['high']

register_host('lraspp', Lraspp)
'''
FAST = [*SMALL, '--epochs', '1', '--control', 'false']

def is_refused(r, name):
    "A sentence that says so."
    return r.returncode == 1 and name in r.stderr and 'Traceback' not in r.stderr

def test_a_strangers_host_in_ten_lines(world, tmp_path):
    (tmp_path/'my_hosts.py').write_text(PLUGIN)
    lraspp = '--model', 'lraspp', '--data', world, *FAST
    r = every_stage(*lraspp, '--plugin', tmp_path/'my_hosts.py', '--out', tmp_path/'run')
    assert r.returncode == 0, r.stderr
    table = pd.read_csv(tmp_path/'run/contributions.csv')
    assert len(table) > 5 and table[['contribution', 'contrast']].notna().all(axis=None)
    assert table.low[table.n_images < FEWEST].isna().all() # of few images nothing is certain
    assert is_refused(process('contributions', *lraspp, '--out', tmp_path/'other'), 'register_host')

def parts_elsewhere(world, folder):
    "Copy a world's folders and graphs to different places: the options that name them."
    parts = {f'--{name}': folder/'elsewhere'/name for name in ('images', 'fixations', 'maps')}
    for path in parts.values(): shutil.copytree(world/path.name, path)
    parts['--scene-graphs'] = shutil.copy(world/'scene_graphs.json', folder/'graphs.json')
    return [word for option in parts.items() for word in option]

# command -> (what it makes, how many results are there already)
MADE = dict(
    train=('phase2/best.safetensors', 0),
    thresholds=('thresholds.nc', 2),
    dissect=('alignment.nc', 3),
    contributions=('contributions.csv', 5))
RARE = '--phase 0 --keep 0,1 --accumulate 2 --patience 1 --clip 1'.split()

def test_stages_one_by_one_from_folders_kept_apart(world, tmp_path):
    parts = parts_elsewhere(world, tmp_path)
    options = [*parts, '--out', tmp_path/'run', *DINET, '--epochs', '1', '--lr', '1e-3']
    for name, (file, made_before) in MADE.items():
        r = done(name, *options)
        assert r.returncode == 0 and (tmp_path/'run'/file).is_file(), r.stderr + r.stdout
        assert r.stdout.count('not made again') == made_before, r.stderr + r.stdout
    r = done('train', *options, '--out', tmp_path/'other', *RARE)
    kept = {f.stem for f in (tmp_path/'other/original').glob('*.safetensors')}
    assert r.returncode == 0 and kept == {'best', 'epoch_000', 'epoch_001'}, r.stderr
    assert is_refused(done('train', *options, '--keep', 'last'), 'epochs')
    assert is_refused(done('train', *options, '--data', world), 'either')

def test_authors_checkpoint_probed_elsewhere(world, tmp_path):
    torch.manual_seed(0)
    theirs = tmp_path/'model_best.pth'
    export_authors(build_model('dinet', n_bases=16, width=16, phase=2), theirs)
    named = shutil.ignore_patterns('scene_graphs.json', 'truth.csv')
    unnamed = shutil.copytree(world, tmp_path/'unnamed', ignore=named)
    options = ['--data', unnamed, '--out', tmp_path/'run', '--checkpoint', theirs, *DINET]
    options += ['--height', '64', '--width', '96']
    r = done('contributions', *options)
    assert is_refused(r, '--probe'), r.stderr
    # without controls: an untrained ResNet-50 would take as long as all the rest
    r = every_stage(*options, '--probe', world, '--control', 'false')
    assert r.returncode == 0 and len(pd.read_csv(tmp_path/'run/contributions.csv')) > 5, r.stderr
    assert len(pd.read_csv(tmp_path/'run/people.csv')) # the same pictures in another folder
    assert not (tmp_path/'run/phase2/metrics.csv').exists()

@pytest.mark.parametrize('asked, policy', [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_threads_that_wait_sleep(asked, policy, monkeypatch, capsys):
    "Else a busy machine takes many times as long; what the user has set stays."
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if asked: monkeypatch.setenv('OMP_WAIT_POLICY', asked)
    assert main(['models']) == 0 and os.environ['OMP_WAIT_POLICY'] == policy

@pytest.mark.parametrize('more', [['--n-images', '9' * 12], ['--size', '99999999', '99999999']], ids=str)
def test_too_little_memory_is_one_sentence(more, tmp_path, capsys):
    assert main(['world', str(tmp_path/'world'), *more]) == 1
    assert 'not enough memory' in capsys.readouterr().err

WITHOUT_A_LIBRARY = [ # arguments, what is said
    (['run', '--epcohs', '3'], 'did you mean --epochs'),
    (['run', *'--data DATA --out OUT --epochs three'.split()], 'give a whole number'),
    (['train', *'--data DATA --out OUT --lenient perhaps'.split()], 'give true or false'),
    (['train', *'--data DATA --out OUT --precision fp16'.split()], 'give one of'),
    (['run', *'--data DATA --out OUT --lr -1'.split()], 'above 0'),
    (['run', *'--data DATA --out OUT --model dinett'.split()], 'did you mean dinet'),
    (['run', *'--data DATA --out OUT --seeds 1'.split()], 'two trainings or more'),
    (['run', *'--data DATA --out OUT --seeds 2 --checkpoint FILE'.split()], 'would be the same'),
    (['run', *'--data DATA --out OUT --shuffled true --checkpoint FILE'.split()], 'shuffled'),
    (['run', *'--data DATA --out OUT --keep last'.split()], 'numbers of epochs'),
    (['run', *'--data DATA --out OUT --reading origin'.split()], 'KEY=VALUE'),
    (['dissect', *'--data DATA --out OUT --probe nowhere'.split()], 'nowhere: no such file or folder'),
    (['run', *'--data nowhere --out OUT'.split()], 'nowhere: no such folder'),
    (['run', *'--data DATA --images DATA --out OUT'.split()], 'either --data FOLDER'),
    (['run', *'--data DATA --out OUT --checkpoint nowhere.pth'.split()], 'nowhere.pth: no such file'),
    (['run', *'--data DATA --out OUT --model mine --plugin nowhere.py'.split()], 'nowhere.py: no such file'),
    (['run', '--data', 'DATA'], '--out'),
    (['fit', *'FILE --data DATA --out OUT --n-bases many'.split()], 'give a whole number'),
    (['world', *'OUT --n-images 1'.split()], '4 or more'),
    (['check-data', *'nowhere --out OUT'.split()], 'nowhere: no such folder'),
    (['predict', *'nowhere.jpg --out OUT'.split()], 'nowhere.jpg'),
    (['explain', *'FILE --out OUT --at 1,2 --box 1,2,3,4'.split()], 'not both'),
    (['score', *'nowhere --data DATA'.split()], 'nowhere: no such folder'),
    (['people', *'DATA --out OUT --reading sigma=wide'.split()], 'sigma'),
    (['compare', *'DATA DATA --out OUT'.split()], 'is no run folder'),
]
TELL = """import io, json, sys
from contextlib import redirect_stderr
from saliency_nb.cli import main
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with redirect_stderr(said): code = main(arguments)
    print(json.dumps([code, said.getvalue(), 'torch' in sys.modules]))
"""

@pytest.mark.parametrize('wrong', [WITHOUT_A_LIBRARY[::2], WITHOUT_A_LIBRARY[1::2]], ids=len)
def test_what_needs_no_library_is_said_before_one_is_loaded(wrong, tmp_path):
    "A wrong value is answered at once; the seconds that torch takes come after."
    for name in ('DATA', 'OUT'): (tmp_path/name).mkdir()
    (tmp_path/'FILE').touch()
    asked = json.dumps([arguments for arguments, _ in wrong])
    how = dict(cwd=tmp_path, env=ENV, capture_output=True, text=True)
    told = subprocess.run([sys.executable, '-c', TELL, asked], **how)
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(lines) == len(wrong), told.stderr
    for (arguments, wanted), (code, said, loaded) in zip(wrong, lines):
        assert code == 1 and wanted in said and len(said.splitlines()) == 1, (arguments, said)
        assert not loaded, arguments
