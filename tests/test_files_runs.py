"""Runs on everybody's files: values as they come, names as they come, folders as they are called.

No fault is found after hours only.
"""
import inspect, json, re, shutil, sys, tempfile
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import get_args
import lightning as L, nbformat, numpy as np, pandas as pd, pytest
from jupyter_client.kernelspec import get_kernel_spec
from saliency_nb import cli, core, inputs, phases, runs
from saliency_nb.core import ParameterError, SaliencyError, read_table
from saliency_nb.fixations import FixationSet
from saliency_nb.stages import Analysis
from saliency_nb.declared import analysis_parameters, checked_parameters, own_parameters, reading_options
from saliency_nb.folders import located
from saliency_nb.runs import html_report, prepared
from saliency_nb.inputs import open_data, opened_splits
from saliency_nb.bases import build_model, save_checkpoint
from saliency_nb.values import CHOICES
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(height=64, width=96, features=8, n_bases=8, epochs=1, epochs2=1, batch=4, control=False,
            min_images=1, accelerator='cpu')
SMALL = ['--preset', 'tiny', '--model', 'dinet', *[f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]]

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('runs')/'world', n_images=24, size=(64, 96), seed=0)

@pytest.fixture
def untrained(monkeypatch):
    "Nothing may be trained."
    def trained(*args, **options): raise AssertionError('trained')
    monkeypatch.setattr(phases, 'train', trained)

def said(capsys, *arguments):
    "Exit code, and what a command says on stderr."
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err

def one_sentence(capsys, *arguments, names=''):
    "Assert that a command fails with one sentence."
    code, err = said(capsys, *arguments)
    assert code == 1 and err.startswith('saliency-nb: ') and err.endswith('.\n'), err
    assert len(err.splitlines()) == 1 and names in err, err

@pytest.mark.parametrize('name, value, wanted', [
    ('lenient', 'False', False),
    ('lenient', 'yes', True),
    ('control', 0, False),
    ('shuffled', np.True_, True),
    ('epochs', '3', 3),
    ('epochs', 3., 3),
    ('lr', '1e-3', .001),
    ('lr', 1, 1.),
    ('data', Path('a/b'), 'a/b'),
    ('keep', '0,2', '0,2'),
])
def test_values_of_parameters_are_converted(name, value, wanted):
    found = checked_parameters('model', {name: value})[name]
    assert found == wanted and type(found) is type(analysis_parameters('model')[name])

@pytest.mark.parametrize('wrong', [
    dict(lenient='perhaps'), dict(lenient=2), dict(lenient=None), # no truth values
    dict(epochs=True), dict(epochs=3.7), dict(epochs='3.7'), # no whole numbers
    dict(lr='nan'), dict(lr=float('inf')), dict(lr=False), dict(keep=3), # of another type
    dict(height=0), dict(width=-96), dict(lr=-1), dict(lr2=0), dict(precision='fp16'), # out of range
    dict(batch=0), dict(features=-1), dict(n_bases=0), dict(workers=-1), dict(patience=-2),
    dict(devices=0), dict(quantile=1), dict(top=-1), dict(clip=-.5), dict(min_images=0),
    dict(devices=100_000), dict(workers=100_000)], ids=str)
def test_values_of_parameters_are_refused(wrong, tmp_path):
    (name, value), = wrong.items()
    arguments = dict(data=tmp_path/'nowhere', out=tmp_path/'run') | wrong
    with pytest.raises(ParameterError) as e: Analysis(**arguments)
    sentence = str(e.value)
    assert sentence.startswith(name) and str(value).strip("'") in sentence and sentence.endswith('.')
    assert not (tmp_path/'run').exists()

@pytest.mark.parametrize('text', ['False', 'no'])
def test_papermill_by_hand_is_checked_too(text, tmp_path):
    cells = json.loads((ROOT/'nbs/analyses/model.ipynb').read_text())['cells']
    cell = next(c for c in cells if c['id'] == '45cd0b3c')
    assert "own_parameters('model', globals())" in ''.join(cell['source'])
    values = analysis_parameters('model') | dict(lenient=text, something_else=1)
    assert own_parameters('model', values)['lenient'] is False

BATCH = '''
from torch import nn
from saliency_nb.hosts import register_host
class Pooled(nn.Module): # normalises one value per image, so a batch of one has nothing to normalise by
    dim = 4
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)
    def forward(self, images):
        f = self.conv(images)
        return f + self.norm(f.mean((2, 3), keepdim=True))
register_host('pooled', Pooled)
'''

@pytest.mark.parametrize('settings', [
    dict(model='dinet', height=2, width=2),
    dict(model='transalnet', height=1, width=1),
    dict(model='pooled', batch=1),
], ids=itemgetter('model'))
def test_sizes_and_batches_that_cannot_work_are_refused_first(settings, world, tmp_path, untrained):
    (tmp_path/'hosts.py').write_text(BATCH)
    arguments = dict(data=world, out=tmp_path/'run', plugin=tmp_path/'hosts.py') | TINY | settings
    with pytest.raises(ParameterError, match='does not work on images of'): Analysis(**arguments)

NAMES = ['nan', 'null', 'NA', '1001', 'True', '007', 'face']

@pytest.mark.parametrize('column', ['semantic', 'image', 'model'])
def test_names_are_text_whatever_they_look_like(column, tmp_path):
    pd.DataFrame({column: NAMES, 'contrast': np.arange(7) / 2}).to_csv(tmp_path/'t.csv', index=False)
    table = read_table(tmp_path/'t.csv')
    assert table[column].tolist() == NAMES and table.contrast.sum() == 10.5

def renamed_world(root):
    "Things of a world get the first of these names, in its scene graphs and in its truth."
    graphs = json.loads((root/'scene_graphs.json').read_text())
    objects = [o for g in graphs.values() for o in g['objects'].values()]
    names = {o['name'] for o in objects}
    kept = [s for s in open_data(root, min_images=3).regions.semantics if s in names]
    new = dict(zip(kept, NAMES[:4]))
    assert len(new) == 4
    truth = pd.read_csv(root/'truth.csv', keep_default_na=False)
    truth.assign(semantic=truth.semantic.replace(new)).to_csv(root/'truth.csv', index=False)
    for o in objects: o['name'] = new.get(o['name'], o['name'])
    (root/'scene_graphs.json').write_text(json.dumps(graphs))

@pytest.fixture(scope='module')
def renamed(world, tmp_path_factory):
    "The analysis of a renamed world, with contributions and people."
    folder = tmp_path_factory.mktemp('names')
    root = shutil.copytree(world, folder/'world')
    renamed_world(root)
    model = build_model('dinet', n_bases=8, backbone='squeezenet1_0', width=8)
    checkpoint = save_checkpoint(model, folder/'model.safetensors')
    analysis = Analysis(**TINY, data=root, out=folder/'run', checkpoint=checkpoint)
    return SimpleNamespace(found=analysis.found, table=analysis.contributions(), beside=analysis.people())

@pytest.mark.parametrize('name', NAMES[:4])
def test_names_survive_a_whole_analysis(name, renamed):
    found = renamed.found
    assert name in found.truth.index and name.lower() in found.regions.semantics
    for table in (renamed.table, renamed.beside): assert table.semantic.tolist().count(name.lower()) == 1
    assert set(renamed.table.semantic) == set(found.regions.semantics)
    assert np.isfinite(renamed.beside.model).all()

def unwritable(world, folder):
    (folder/'file').write_text('')
    return dict(out=folder/'file'), 'file: cannot be written into'

def unnamed(world, folder):
    shutil.copytree(world, folder/'unnamed', ignore=shutil.ignore_patterns('scene_graphs.json', 'truth.csv'))
    return dict(data=folder/'unnamed'), 'unnamed: holds no named regions'

def unknown_host(world, folder): return dict(model='resnet'), "model 'resnet'"

def unknown_backbone(world, folder): return dict(backbone='vgg'), "backbone 'vgg'"

def weights_missing(world, folder): return dict(weights=folder/'nowhere.pth'), 'nowhere.pth: no such file'

def plugin_missing(world, folder): return dict(plugin=folder/'nowhere.py'), 'nowhere.py: no such file'

def plugin_broken(world, folder):
    (folder/'p.py').write_text('import nothing_of_this_name')
    return dict(plugin=folder/'p.py'), 'p.py: does not run'

def probe_without_images(world, folder):
    (folder/'probe').mkdir()
    shutil.copy(world/'scene_graphs.json', folder/'probe')
    return dict(probe=folder/'probe'), 'no folder images/'

def probe_of_broken_images(world, folder):
    shutil.copytree(world, folder/'broken')
    (folder/'broken/images/val/scene_00017.jpg').write_bytes(b'')
    return dict(probe=folder/'broken'), 'scene_00017.jpg'

def checkpoint_of_another_host(world, folder):
    model = build_model('salicon', n_bases=4, backbone='squeezenet1_0', width=4)
    return dict(checkpoint=save_checkpoint(model, folder/'m.safetensors')), 'a checkpoint of salicon'

def checkpoint_without_bases(world, folder):
    model = build_model('dinet', phase=0, backbone='squeezenet1_0', width=4)
    return dict(checkpoint=save_checkpoint(model, folder/'m.safetensors')), 'without bases'

def too_few_images(world, folder):
    return dict(data=make_world(folder/'few', n_images=6, size=(64, 96))), 'too few'

def record_of_something_else(world, folder):
    (folder/'run').mkdir()
    (folder/'run/run.json').write_text('[]')
    return {}, 'not the record of a run'

LATE = [unwritable, unnamed, unknown_host, unknown_backbone, weights_missing, plugin_missing, plugin_broken,
        probe_without_images, probe_of_broken_images, checkpoint_of_another_host, checkpoint_without_bases,
        too_few_images, record_of_something_else]

@pytest.mark.parametrize('fault', LATE, ids=lambda f: f.__name__)
def test_faults_are_found_before_the_first_epoch(fault, world, tmp_path, untrained):
    given, sentence = fault(world, tmp_path)
    arguments = dict(data=world, out=tmp_path/'run') | TINY | given
    with pytest.raises(SaliencyError) as e: Analysis(**arguments)
    said = str(e.value)
    assert sentence in said and said.endswith('.') and '\n' not in said, said

@pytest.mark.parametrize('wrong', ['nowhere', 'empty', 'several', 'alone'])
def test_a_probe_is_looked_at_before_weights_are(wrong, world, tmp_path, capsys, monkeypatch):
    "It is used hours later."
    monkeypatch.setattr(phases, 'check_network', None) # which would load them
    probe = tmp_path/wrong
    if wrong != 'nowhere': probe.mkdir()
    if wrong == 'alone': shutil.copy(world/'scene_graphs.json', probe)
    if wrong == 'several':
        for name in ('train', 'val'): (probe/f'instances_{name}.json').write_text(COCO)
    asked = ['--data', world, '--out', tmp_path/'run', '--probe', probe]
    one_sentence(capsys, 'dissect', *asked, *SMALL, names=wrong)
    plugin = tmp_path/'mine.py'
    plugin.write_text('raise AssertionError')
    one_sentence(capsys, 'fit', plugin, *asked, names=wrong)

COCO = json.dumps(dict(images=[], categories=[], annotations=[dict(image_id=1, segmentation=[])]))

@pytest.mark.parametrize('command', ['dissect', 'run', 'people'])
def test_several_sets_of_regions_have_to_be_told_apart(command, world, tmp_path, capsys, untrained):
    "One sentence names both files and the option to choose one."
    root = shutil.copytree(world, tmp_path/'world', ignore=shutil.ignore_patterns('scene_graphs.json'))
    (root/'annotations').mkdir()
    for name in ('instances_val.json', 'panoptic_val.json'): (root/'annotations'/name).write_text(COCO)
    data = [root] if command == 'people' else [*SMALL, '--data', root]
    code, err = said(capsys, command, *data, '--out', tmp_path/'run')
    wanted = f'--probe {root}/annotations/instances_val.json', f'{root}/annotations/panoptic_val.json'
    assert code == 1 and all(w in err for w in wanted) and len(err.splitlines()) == 1, err

@pytest.mark.parametrize('kept', [3, 0])
def test_names_on_some_scored_images_are_enough(kept, world, tmp_path, capsys, untrained):
    "Those are probed on, all are scored, and one line says how many; none at all is a sentence."
    root = shutil.copytree(world, tmp_path/'world')
    scored = sorted(p.stem for p in (root/'images/val').iterdir())
    graphs = json.loads((root/'scene_graphs.json').read_text())
    for image in scored[kept:]: del graphs[image]
    (root/'scene_graphs.json').write_text(json.dumps(graphs))
    asked = ['dissect', '--data', root, '--out', tmp_path/'run', *SMALL]
    if not kept: return one_sentence(capsys, *asked, names='scene_graphs')
    analysis = Analysis(data=root, out=tmp_path/'run', **TINY)
    assert analysis.found.regions.ids == scored[:kept] and analysis.found.val.ids == scored
    assert not analysis.found.left_out
    wanted = f'{kept} of {len(scored)} scored images carry named regions; the bases are probed on those.\n'
    assert capsys.readouterr().out == wanted

def test_a_broken_annotation_is_a_fault_all_the_same(world, tmp_path, capsys, untrained):
    root = shutil.copytree(world, tmp_path/'world')
    scored = sorted(p.stem for p in (root/'images/val').iterdir())
    graphs = json.loads((root/'scene_graphs.json').read_text())
    del graphs[scored[0]]
    graphs[scored[1]]['width'] += 7
    graphs[scored[2]]['objects'] = 'none'
    (root/'scene_graphs.json').write_text(json.dumps(graphs))
    one_sentence(capsys, 'dissect', '--data', root, '--out', tmp_path/'run', *SMALL, names=scored[2])
    found = Analysis(data=root, out=tmp_path/'run', lenient=True, **TINY).found
    assert [p.image for p in found.left_out] == [scored[2]]
    assert found.regions.ids == [scored[1], *scored[3:]]

@pytest.mark.parametrize('folders, labels', [
    (['a/run', 'b/run'], ['a', 'b']), (['runs/a', 'runs/b'], ['a', 'b']),
    (['a/run', 'b/run', 'b/other'], ['a/run', 'b/run', 'b/other']),
    (['a/x/run', 'b/x/run'], ['a', 'b']), (['a', 'a/a'], None)], ids=str)
def test_labels_of_runs_are_short_and_different(folders, labels):
    found = runs.short_paths(folders)
    assert found == labels or not labels and len(set(found)) == len(folders)

def test_runs_are_called_by_their_models_where_these_differ(tmp_path):
    for folder, model in (('a', 'dinet'), ('b', 'salicon'), ('c', 'dinet')):
        (tmp_path/folder/'run').mkdir(parents=True)
        (tmp_path/folder/'run/run.json').write_text(json.dumps(dict(parameters=dict(model=model), stages={})))
    a, b, c = (tmp_path/f/'run' for f in 'abc')
    assert runs.run_labels([a, b]) == ['dinet', 'salicon'] and runs.run_labels([a, c]) == ['a', 'c']

def test_precisions_are_those_of_lightning():
    "They are written down so that a misspelt one is refused before Lightning is loaded."
    def alternatives(kind): return sum(map(alternatives, get_args(kind)), []) or [kind]
    known = alternatives(inspect.signature(L.Trainer).parameters['precision'].annotation)
    assert set(CHOICES['precision']) == {p for p in known if isinstance(p, str)}

def no_annotation(root): (root/'scene_graphs.json').unlink()
def broken_annotation(root):
    path = root/'scene_graphs.json'
    path.write_text(path.read_text()[:3000])

@pytest.mark.parametrize('harm', [no_annotation, broken_annotation], ids=lambda f: f.__name__)
def test_training_needs_no_names(harm, world, tmp_path, capsys, monkeypatch):
    root = shutil.copytree(world, tmp_path/'data {b}, é')
    harm(root)
    run = tmp_path/'runs {a}/%d, é' # Lightning and TensorBoard take any path, too
    out = ['--out', run, *SMALL]
    one_sentence(capsys, 'dissect', '--data', root, *out)
    assert not (run/'phase1').exists()
    assert said(capsys, 'train', '--data', root, *out)[0] == 0
    monkeypatch.setattr(phases, 'train', None) # the annotated images are the same: nothing is trained again
    assert said(capsys, 'dissect', '--data', world, *out)[0] == 0 and (run/'alignment.nc').is_file()

@pytest.mark.parametrize('text, options', [
    ('', {}),
    ('origin=0.5 view=mouse_lab', dict(origin=.5, view='mouse_lab')),
    ('sigma=30 degrees=1', dict(sigma=30., degrees=1.)),
    ('x=CURRENT_FIX_X y="FIX Y"', dict(x='CURRENT_FIX_X', y='FIX Y')),
    ('delimiter=; first=true time=500', dict(delimiter=';', first=True, time=500)),
    ("x=\"'1'\"", dict(x='1')),
])
def test_reading_options_are_read(text, options): assert reading_options(text) == options

@pytest.mark.parametrize('text', ['origin', '=3', 'x="a', 'sigma=wide', 'problems=1', 'two words=1'])
def test_reading_options_are_refused(text):
    with pytest.raises(ParameterError, match='^(reading|sigma)'): reading_options(text)

@pytest.mark.parametrize('arguments, sigma', [
    (['--reading', 'sigma=30'], 30),
    (['--reading', 'sigma=12', '--reading', 'split=train'], 12),
])
def test_reading_options_reach_the_reader(arguments, sigma, world, tmp_path):
    args = cli.parser().parse_args(['train', '--data', str(world), '--out', str(tmp_path), *arguments])
    reading = reading_options(cli.given(args, 'dinet', tmp_path)['reading'])
    found = open_data(world, names=False, reading=reading)
    splits = {'train'} if 'split' in reading else {'val'}
    assert found.val.sigma == sigma and set(found.val.images.split) == splits

@pytest.mark.parametrize('option, shown', [('colour=red', "no option 'colour'"), ('sigma=-3', 'sigma')])
def test_reading_options_that_a_reader_does_not_have(option, shown, world, tmp_path, capsys, untrained):
    arguments = ['--data', world, '--out', tmp_path/'run', *SMALL, '--reading', option]
    one_sentence(capsys, 'train', *arguments, names=shown)

def test_min_images_keeps_fewer_names(world):
    kept = [len(open_data(world, min_images=least).regions.semantics) for least in (1, 2)]
    assert kept[0] > kept[1]

def test_min_images_that_keeps_no_name_is_refused(world, tmp_path, capsys, untrained):
    arguments = ['--data', world, '--out', tmp_path/'run', *SMALL, '--min-images', 1000]
    one_sentence(capsys, 'dissect', *arguments, names='min_images')

@pytest.mark.parametrize('name', ['val', 'valid'])
def test_a_split_that_the_table_names_is_used(name, monkeypatch, world):
    sets = open_data(world, names=False)
    images = pd.concat([sets.train.images, sets.select.images, sets.val.images]).sort_index()
    images['split'] = ['train'] * 15 + ['test'] * 4 + [name] * 5
    rows = pd.concat([s.fixations for s in (sets.train, sets.select, sets.val)])
    own = FixationSet('own', images, rows, 19.)
    monkeypatch.setattr(inputs, 'read_fixations', lambda *args, **options: own)
    train, val = opened_splits(world.parent, 0, core.Problems(), {})
    assert train.ids == images.index[:15].tolist() and val.ids == images.index[19:].tolist()

WHERE_IT_STANDS = '''import json, os, sys
with open('said', 'w') as f: json.dump([sys.executable, os.getcwd(), runs], f)'''

def small_analysis(monkeypatch, package, parameter):
    """A package with one analysis, compare_models.ipynb.

    It writes what it was given into a file `said` of the folder it stands in.
    """
    (package/'analyses').mkdir(parents=True)
    first = nbformat.v4.new_code_cell(parameter, metadata=dict(tags=['parameters']))
    second = nbformat.v4.new_code_cell(WHERE_IT_STANDS)
    metadata = dict(kernelspec=dict(name='python3', language='python', display_name='Python 3'))
    notebook = nbformat.v4.new_notebook(cells=[first, second], metadata=metadata)
    nbformat.write(notebook, package/'analyses/compare_models.ipynb')
    monkeypatch.setattr(core, '__file__', str(package/'core.py'))

@pytest.mark.parametrize('place', ['JUPYTER_DATA_DIR', 'HOME'])
def test_the_kernel_is_the_interpreter_of_the_command(place, tmp_path, monkeypatch):
    kernels = tmp_path/('' if place == 'JUPYTER_DATA_DIR' else '.local/share/jupyter')/'kernels/python3'
    kernels.mkdir(parents=True)
    spec = dict(argv=['/bin/false', '{connection_file}'], display_name='another', language='python')
    (kernels/'kernel.json').write_text(json.dumps(spec))
    for name in ('JUPYTER_DATA_DIR', 'JUPYTER_PATH'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('JUPYTER_PREFER_ENV_PATH', '0')
    monkeypatch.setenv(place, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    small_analysis(monkeypatch, tmp_path/'package', "runs: str = ''")
    assert get_kernel_spec('python3').argv[0] == '/bin/false'
    runs.execute('compare_models', tmp_path/'out', runs='a,b')
    assert json.loads((tmp_path/'said').read_text()) == [sys.executable, str(tmp_path), 'a,b']
    assert get_kernel_spec('python3').argv[0] == '/bin/false' # as before

@pytest.mark.parametrize('without', [(), ('names',)], ids=str)
def test_nothing_is_left_in_the_temporary_folder(without, tmp_path, monkeypatch):
    "Nothing is put there, so that not even a command that is killed leaves something."
    for name in ('mkdtemp', 'mkstemp'): monkeypatch.setattr(tempfile, name, None)
    small_analysis(monkeypatch, tmp_path/'package', "runs: str = ''")
    monkeypatch.chdir(tmp_path)
    assert runs.execute('compare_models', tmp_path/'out', without=without).is_file()
    assert not list((tmp_path/'out').glob('.*'))

@pytest.mark.parametrize('name', ['runs {a}/b,c é', "{} it's 100% \"quoted\" \\n"])
def test_folders_may_have_any_name(name, tmp_path, monkeypatch):
    "Runs, reports, the folder one stands in, and the package itself."
    here = tmp_path/name
    small_analysis(monkeypatch, here/'package', 'runs: list = []')
    monkeypatch.chdir(here)
    page = cli.side_by_side([here/'b,c', '{d}'], here/'side')
    assert page == here/'side/compare_models.html' and page.is_file()
    folders = [str(here/'b,c'), str(here/'{d}')]
    assert json.loads((here/'said').read_text()) == [sys.executable, str(here), folders]
    assert prepared('compare_models', here/'later', runs=[str(here)]).is_file()

@pytest.mark.parametrize('typed', ['~/world', '~'])
def test_a_leading_tilde_is_the_home_folder(typed, tmp_path, monkeypatch):
    here = tmp_path/'elsewhere'
    here.mkdir()
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(here)
    assert located(typed) == tmp_path/typed.replace('~', '').strip('/')
    assert cli.home_path(typed) == str(tmp_path) + typed[1:]
    (here/'~').mkdir()
    assert located('~') == here/'~'

@pytest.mark.parametrize('arguments', [
    ['run'],
    ['fly'],
    ['train', '--data', 'x', '--out', 'y', '--epoch'],
    ['world', '/proc/nowhere/world'],
    ['world', 'w', '--n-images', 'many'],
    ['compare', 'a', 'a', '--out', 'o'],
    ['check-data', 'x', '--out', '/proc/nowhere'],
    ['explore', '/proc'],
    ['run', '--data', 'x', '--out', 'y', '--lenient', 'perhaps'],
], ids=' '.join)
def test_bad_arguments_are_one_sentence(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_sentence(capsys, *arguments)

def test_the_last_of_several_models_is_checked_before_the_first(world, tmp_path, capsys, untrained):
    arguments = ['--data', world, '--out', tmp_path, *SMALL, '--model', 'dinet', 'nosuch']
    one_sentence(capsys, 'run', *arguments, names='nosuch')
    assert not list(tmp_path.glob('*/phase1'))

# Pages

@pytest.mark.parametrize('hostile, written', [
    ('w<img src=x onerror=alert(4)>', '<img'),
    ('</title><script>alert(4)</script>', '<script>alert(4)'),
    ('[w](javascript:alert(4))', 'href="javascript:'),
    ('![w](javascript:alert(4))', 'src="javascript:'),
], ids=str)
def test_a_page_runs_nothing_and_fetches_nothing(hostile, written, tmp_path):
    "Names in Markdown are a stranger's; what a page shows is in it."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f'# Data {hostile} and `{hostile}`')])
    data = {'text/plain': 'VBox()', 'application/vnd.jupyter.widget-view+json': dict(model_id='a')}
    shown = nbformat.v4.new_output('display_data', data)
    nb.cells += [nbformat.v4.new_code_cell('1', outputs=[shown])]
    nbformat.write(nb, tmp_path/'page.ipynb')
    page = html_report(tmp_path/'page.ipynb').read_text()
    body = page.split('<main')[1]
    assert written not in body and 'alert(4)' in body # as text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page) and 'widget-view' not in body
