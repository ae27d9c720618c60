"Everybody's files of fixations: scanpaths of COCO, tables of every dialect, pysaliency's HDF5."
# The fixtures are written from the descriptions of the formats.
import json, unicodedata
from types import SimpleNamespace
import h5py, numpy as np, pytest
from PIL import Image
from scipy.io import savemat
from saliency_nb.core import DataError, ParameterError, Problems, rng
from saliency_nb.fixation_readers import LAYOUTS, read_fixations, read_pysaliency
from saliency_nb.fixation_layouts import read_scanpaths
from saliency_nb.fixation_exports import read_csv
from saliency_nb.fixations import check_images

H, W = SIZE = 48, 64

def picture(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng(seed, path.name).integers(0, 255, (*size, 3), np.uint8)).save(path)

def xy(found, image):
    return found.fixations[found.fixations.image == image][['x', 'y']].to_numpy().tolist()

def kinds(read, *args, **options):
    problems = Problems(strict=False)
    try: read(*args, problems=problems, **options)
    except DataError as e: problems.add(str(e), '', e.kind)
    return [(p.image, p.kind) for p in problems]

# ---------------------------------------------------------------- COCO-FreeView and COCO-Search18

def trial(name, X, Y, T=None, subject=1, task='bottle', condition='present', split='train'):
    "One scanpath as the data set's readme describes it."
    T = [200] * len(X) if T is None else T
    known = dict(name=name, subject=subject, task=task, condition=condition, split=split)
    return known | dict(bbox=[1, 2, 3, 4], X=X, Y=Y, T=T, length=len(X), correct=1, RT=900)

def scanpaths(root, trials, name='fixations.json'):
    root.mkdir(parents=True, exist_ok=True)
    (root/name).write_text(json.dumps(trials))
    return root

# what picture: size, positions on the screen of 1680 x 1050, where that is on the picture (drawn by hand)
DRAWN = {
    'padded': (
        (1050, 1680),
        ([840, 0, 1679.5], [525, 10, 1049]),
        [(840, 525), (0, 10), (1679.5, 1049)],
    ),
    'padded and halved': (
        (525, 840),
        ([840, 0, 1678], [525, 10, 1048]),
        [(420, 262.5), (0, 5), (839, 524)],
    ),
    'landscape': ( # 1400 x 1050 on the screen
        (480, 640),
        ([140, 840, 1539], [0, 525, 1049]),
        [(0, 0), (320, 240), (1399 / 2.1875, 1049 / 2.1875)],
    ),
    'portrait': ( # 787.5 x 1050
        (640, 480),
        ([446.25, 840, 1233], [0, 525, 1049]),
        [(0, 0), (240, 320), (786.75 / 1.640625, 1049 / 1.640625)],
    ),
    'panorama': ( # 1680 x 420: padding above and below
        (200, 800),
        ([0, 840, 1679], [315, 525, 734]),
        [(0, 0), (400, 100), (1679 / 2.1, 419 / 2.1)],
    ),
}

@pytest.mark.parametrize('size, screen, places', DRAWN.values(), ids=DRAWN)
def test_positions_on_the_screen_are_brought_to_the_picture(size, screen, places, tmp_path):
    picture(tmp_path/'images/000000000001.jpg', size)
    found = read_fixations(scanpaths(tmp_path, [trial('000000000001.jpg', *screen)]), first=True)
    assert np.allclose(xy(found, '000000000001'), places)
    assert found.images[['height', 'width']].values.tolist() == [list(size)]
    assert check_images(found).px_per_degree == found.sigma

# the padding belongs to the padded picture, not to the original
@pytest.mark.parametrize('size, left_out', [((1050, 1680), 1), ((480, 640), 2)])
def test_looks_beside_the_screen_or_on_the_padding_are_counted(size, left_out, tmp_path):
    picture(tmp_path/'images/a.jpg', size)
    X = [840] + [500, 700, 900] * 6 + [60, -12.5]
    Y = [525] + [500] * 18 + [525, 300]
    found = read_scanpaths(scanpaths(tmp_path, [trial('a.jpg', X, Y)]))
    assert found.left_out == left_out and len(found.fixations) == 20 - left_out

def two_tasks(root):
    "bottle/ and cup/ hold copies of one picture, and cup/ and fork/ two pictures of one name."
    for folder in ('images/bottle', 'images/cup'): picture(root/folder/'same.jpg')
    picture(root/'images/cup/other.jpg')
    picture(root/'images/stop_sign/other.jpg', (64, 48))
    trials = [
        trial('same.jpg', [840, 700], [525, 500], [100, 150], 1, 'bottle', split='valid'),
        trial('same.jpg', [840, 900], [525, 400], [120, 130], 2, 'cup', split='train'),
        trial('other.jpg', [840, 700], [525, 500], [90, 10], 1, 'cup', split='valid'),
        trial('other.jpg', [840, 700], [525, 510], [80, 20], 3, 'stop sign', 'absent', 'test'),
    ]
    return scanpaths(root, trials)

def test_one_picture_of_several_tasks_is_one_image_and_one_name_of_several_pictures_is_several(tmp_path):
    found = read_scanpaths(two_tasks(tmp_path))
    assert found.ids == ['cup_other', 'same', 'stop_sign_other']
    assert found.images.split.tolist() == ['val', 'train', 'test']
    tasks = found.fixations.groupby('image').task.agg(list)
    several = {'cup_other': ['cup'], 'same': ['bottle', 'cup'], 'stop_sign_other': ['stop sign']}
    assert tasks.to_dict() == several
    assert found.images.loc['stop_sign_other', ['height', 'width']].tolist() == [64, 48]
    assert len(check_images(found)) == 3

@pytest.mark.parametrize('options, ids, observers', [
    (dict(split='val'), ['cup_other'], ['1']),
    (dict(split='valid'), ['cup_other'], ['1']),
    (dict(split='train'), ['same'], ['1', '2']),
    (dict(task='cup'), ['cup_other', 'same'], ['1', '2']),
    (dict(condition='absent'), ['stop_sign_other'], ['3']),
    (dict(task='bottle', split='train'), ['same'], ['1']),
])
def test_scanpaths_are_selected(options, ids, observers, tmp_path):
    found = read_fixations(two_tasks(tmp_path), **options)
    assert found.ids == ids and sorted(found.fixations.observer) == observers

def test_onsets_and_the_first_fixation(tmp_path):
    root = two_tasks(tmp_path)
    times = ['order', 't', 'duration']
    later = read_scanpaths(root, task='bottle').fixations
    whole = read_scanpaths(root, task='bottle', first=True).fixations
    assert later[times].values.tolist() == [[1, 100, 150]]
    assert whole[times].values.tolist() == [[0, 0, 100], [1, 100, 150]]

def without_the_picture(root):
    for task in ('cup', 'stop_sign'): (root/f'images/{task}/other.jpg').unlink()

def with_lists_of_different_length(root):
    uneven = trial('same.jpg', [840, 700], [525])
    scanpaths(root, [uneven, trial('other.jpg', [1, 700], [2, 500], task='cup')])

def with_numbers_for_lists(root): scanpaths(root, [dict(name='same.jpg', X=1, Y=2)])

def with_both_divisions(root): scanpaths(root, [trial('same.jpg', [840, 700], [525, 500])], 'split2.json')

WRONG_SCANPATHS = { # what is wrong: how, what the sentence says, image and kind
    'the picture is missing': (
        without_the_picture,
        'scanpaths of other, but no image',
        ('other', 'fixations without image'),
    ),
    'lists of different length': (
        with_lists_of_different_length,
        'of image same as lists X, Y and T of one length',
        ('same',),
    ),
    'no list': (with_numbers_for_lists, 'a list of scanpaths (name, subject, X, Y, T)', ('',)),
    'both divisions of the data set': (
        with_both_divisions,
        'holds scanpaths that fixations.json holds too',
        ('', 'same id twice'),
    ),
}

@pytest.mark.parametrize('damage, words, fault', WRONG_SCANPATHS.values(), ids=WRONG_SCANPATHS)
def test_wrong_scanpaths_are_one_sentence(damage, words, fault, tmp_path):
    root = two_tasks(tmp_path)
    damage(root)
    with pytest.raises(DataError) as e: read_fixations(root)
    assert words in str(e.value) and str(tmp_path) in str(e.value) and str(e.value).endswith('.')
    assert kinds(read_fixations, root)[0][:len(fault)] == fault

@pytest.mark.parametrize('option, value', [('task', 'spoon'), ('condition', 'freeview'), ('split', 'night')])
def test_no_such_scanpaths(option, value, tmp_path):
    words = f'{option} = {value}: .* has '
    with pytest.raises(ParameterError, match=words): read_scanpaths(two_tasks(tmp_path), **{option: value})

def salicon_json(root, name):
    picture(root/'images/a.jpg')
    frames = [dict(id=7, file_name='a.jpg', height=H, width=W)]
    annotations = [dict(image_id=7, worker_id=1, fixations=[[10, 20]])]
    (root/name).write_text(json.dumps(dict(images=frames, annotations=annotations)))
    return root

@pytest.mark.parametrize('name', [
    'fixations_train.json',
    'COCOFreeView_fixations_trainval.json',
    'annotations/fixations_val2014.json',
])
def test_json_is_known_by_its_content(name, tmp_path):
    picture(tmp_path/'images/a.jpg')
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations/instances_val2017.json').write_text('{"images": [], "annotations": []}')
    mark = '\ufeff' if name == 'fixations_train.json' else ''
    text = json.dumps([trial('a.jpg', [840, 700], [525, 500])])
    (tmp_path/name).write_text(mark + text, encoding='utf-8')
    assert read_fixations(tmp_path).fixations.task.tolist() == ['bottle']
    other = salicon_json(tmp_path/'salicon', 'fixations_train2014.json')
    assert xy(read_fixations(other), 'a') == [[19.5, 9.5]]

# ---------------------------------------------------------------- tables

ROWS = [
    ['a.png', 'Jörg', '10.25', '20.5', '300', '120.5'],
    ['a.png', 'Jörg', '1', '2', '0', '130'],
    ['b.png', 'Eve', '63.5', '47.75', '0', '90'],
]
NAMES = ['image', 'observer', 'x', 'y', 't', 'duration']

def written(names, rows, delimiter=',', decimal='.', encoding='utf-8', quoted=False):
    "A table as bytes; the first column holds names, in which a point is no decimal one."
    def line_of(values):
        fields = [f'"{v}"' for v in values] if quoted else values
        return delimiter.join(fields) + '\r\n'
    def with_decimals(row): return row[:1] + [v.replace('.', decimal) for v in row[1:]]
    lines = [names, *map(with_decimals, rows)]
    return ''.join(map(line_of, lines)).encode(encoding)

def folder_of(root, images=('a.png', 'b.png'), **tables):
    for i in images: picture(root/'images'/i)
    for name, content in tables.items(): (root/name.replace('__', '.')).write_bytes(content)
    return root

def table_of(root, lines, images=('a.png', 'b.png')):
    "A folder with fixations.csv of these lines."
    return folder_of(root, images, fixations__csv='\n'.join([*lines, '']).encode())

DIALECTS = { # how a table is written: its options, what read_csv must be told
    'comma': ({}, {}),
    'semicolon': (dict(delimiter=';'), {}),
    'tab': (dict(delimiter='\t'), {}),
    'semicolon and decimal comma': (dict(delimiter=';', decimal=','), {}),
    'quoted decimal comma': (dict(decimal=',', quoted=True), {}),
    'tab and decimal comma in UTF-16': (dict(delimiter='\t', decimal=',', encoding='utf-16'), {}),
    'UTF-8 with mark': (dict(encoding='utf-8-sig'), {}),
    'UTF-16, big end first': (dict(encoding='utf-16'), {}),
    'Latin 1': (dict(encoding='latin-1'), dict(encoding='latin-1')),
    'bars': (dict(delimiter='|'), {}),
}

@pytest.mark.parametrize('ending', ['csv', 'tsv', 'txt'])
@pytest.mark.parametrize('dialect', DIALECTS)
def test_dialects_of_tables(dialect, ending, tmp_path):
    how, told = DIALECTS[dialect]
    content = written(NAMES, ROWS, **how)
    if 'big end' in dialect: content = b'\xfe\xff' + written(NAMES, ROWS, encoding='utf-16-be')
    found = read_fixations(folder_of(tmp_path, **{f'fixations__{ending}': content}), **told)
    f = found.fixations
    assert xy(found, 'a') == [[10.25, 20.5], [1, 2]] and f.observer.tolist() == ['Jörg', 'Jörg', 'Eve']
    assert f.duration.tolist() == [120.5, 130, 90] and f.order.tolist() == [1, 0, 0]

@pytest.mark.parametrize('value', ['1,024', '2,500'])
def test_a_comma_that_may_be_a_thousand_is_not_guessed_at(value, tmp_path):
    root = folder_of(tmp_path, fixations__csv=f'image;x;y\na;{value};3\nb;4;5\n'.encode())
    with pytest.raises(DataError, match=f"x is '{value}', which is no number"): read_fixations(root)
    assert xy(read_fixations(root, decimal=','), 'a') == [[float(value.replace(',', '.')), 3]]

EYELINK = ['RECORDING_SESSION_LABEL', 'TRIAL_INDEX', 'CURRENT_FIX_INDEX', 'CURRENT_FIX_X', 'CURRENT_FIX_Y',
           'CURRENT_FIX_START', 'CURRENT_FIX_DURATION', 'photo']
TOBII = ['RecordingTimestamp', 'ParticipantName', 'MediaName', 'GazeEventType', 'FixationIndex',
         'GazeEventDuration', 'FixationPointX (MCSpx)', 'FixationPointY (MCSpx)']
TOBII_PRO = ['Recording timestamp', 'Participant name', 'Presented Stimulus name', 'Eye movement type',
             'Eye movement type index', 'Gaze event duration', 'Fixation point X', 'Fixation point Y']
SMI = ['Trial', 'Stimulus', 'Participant', 'Category', 'Event Start Trial Time [ms]', 'Event Duration [ms]',
       'Fixation Position X [px]', 'Fixation Position Y [px]']
EYELINK_ROWS = [
    ['P01', '1', '1', '10.5', '20', '5', '210', 'a.png'],
    ['P01', '1', '2', '30', '40', '250', '190', 'a.png'],
    ['P01', '2', '1', '3', '4', '2', '250', 'b.png'],
]
TOBII_ROWS = [ # samples, those of one fixation with its number; a saccade and a pause without picture between
    ['1000', 'P01', 'a.png', 'Fixation', '4', '210', '10.5', '20'],
    ['1003', 'P01', 'a.png', 'Fixation', '4', '210', '10.5', '20'],
    ['1006', 'P01', 'a.png', 'Saccade', '1', '30', '', ''],
    ['1009', 'P01', 'a.png', 'Fixation', '5', '190', '30', '40'],
    ['1012', 'P01', '', 'Fixation', '6', '100', '1', '1'],
    ['1015', 'P01', 'b.png', 'Fixation', '7', '250', '3', '4'],
    ['1018', 'P01', 'b.png', 'Fixation', '7', '250', '3', '4'],
]
SMI_ROWS = [
    ['T1', 'a.png', 'P01', 'Visual Intake', '5', '210', '10.5', '20'],
    ['T1', 'a.png', 'P01', 'Saccade', '215', '30', '-', '-'],
    ['T1', 'a.png', 'P01', 'Visual Intake', '250', '190', '30', '40'],
    ['T2', 'b.png', 'P01', 'Visual Intake', '2', '250', '3', '4'],
]
EXPORTS = { # whose: how it is written
    'EyeLink Data Viewer': written(EYELINK, EYELINK_ROWS, '\t'),
    'Tobii Studio': written(TOBII, TOBII_ROWS, '\t', encoding='utf-16'),
    'Tobii Pro Lab': written(TOBII_PRO, TOBII_ROWS, '\t', encoding='utf-8-sig'),
    'SMI BeGaze': written(SMI, SMI_ROWS),
}

@pytest.mark.parametrize('tracker', EXPORTS)
def test_exports_are_known_by_their_header(tracker, tmp_path):
    found = read_fixations(folder_of(tmp_path, export__txt=EXPORTS[tracker]))
    f = found.fixations
    assert xy(found, 'a') == [[10.5, 20], [30, 40]] and xy(found, 'b') == [[3, 4]]
    assert f.order.tolist() == [0, 1, 0]
    assert f.duration.tolist() == [210, 190, 250] and set(f.observer) == {'P01'}
    if 'Tobii' in tracker:
        assert f.t.isna().all() # its times are those of the recording
        assert found.left_out == 1 # the look at no picture
    else:
        assert f.t.tolist() == [5, 250, 2] and found.left_out == 0

PLACES = dict(x='gaze x', y='gaze y', image='trial photo')
ALL_COLUMNS = dict(x='GAZE X', y='GAZE Y', image='trial photo', observer='who', group='site', order='nr',
                   t='on', duration='ms')

@pytest.mark.parametrize('mapping', [PLACES, ALL_COLUMNS])
def test_columns_by_name(mapping, tmp_path):
    names = ['trial photo', 'gaze x', 'gaze y', 'who', 'site', 'nr', 'on', 'ms', 'x']
    rows = [
        ['a.png', '10', '20', '007', '01', '1', '30', '200', '999'],
        ['a.png', '11', '21', '007', '01', '0', '0', '30', '999'],
        ['b.png', '1', '2', '8', '02', '0', '0', '50', '999'],
    ]
    root = folder_of(tmp_path, data__txt=written(names, rows, '\t'))
    found = read_fixations(root, **mapping)
    f = found.fixations
    assert xy(found, 'a') == [[10, 20], [11, 21]]
    if mapping is ALL_COLUMNS:
        assert f.order.tolist() == [1, 0, 0] and f.observer.tolist() == ['007', '007', '8']
        assert f.group.tolist() == ['01', '01', '02']
        assert f.t.tolist() == [30, 0, 0] and f.duration.tolist() == [200, 30, 50]
    else:
        assert f.order.tolist() == [0, 1, 0] and f.who.tolist() == [7, 7, 8] and (f.observer == '').all()

@pytest.mark.parametrize('wrong, words', [
    (dict(x='gaze_x'), "no column 'gaze_x' among image, observer"),
    (dict(duration='ms'), "no column 'ms' among image"),
    (dict(delimiter=';'), "no column 'image' among image,observer"),
])
def test_a_column_that_is_not_there(wrong, words, tmp_path):
    root = folder_of(tmp_path, fixations__csv=written(NAMES, ROWS))
    with pytest.raises(DataError, match=words) as e: read_csv(root/'fixations.csv', **wrong)
    assert e.value.kind == 'unreadable fixations'

@pytest.mark.parametrize('origin, place', [(.5, [9.75, 20]), ((2, 3), [8.25, 17.5]), ([0, .5], [10.25, 20])])
def test_origin_of_one_or_both_axes(origin, place, tmp_path):
    rows = [ROWS[0], ['b.png', 'Eve', '4', '5', '0', '1']]
    root = folder_of(tmp_path, fixations__csv=written(NAMES, rows))
    assert xy(read_fixations(root, origin=origin), 'a') == [place]

@pytest.mark.parametrize('missing', ['.', '', 'NA', 'nan', '-'])
def test_missing_numbers_are_left_out_and_counted(missing, tmp_path):
    rows = [['a.png', 'P', str(k), '20', '.', ''] for k in range(20)]
    rows += [['a.png', 'P', missing, missing, '0', '1'], ['b.png', 'P', '3', '4', missing, missing]]
    found = read_fixations(folder_of(tmp_path, fixations__csv=written(NAMES, rows)))
    assert len(found.fixations) == 21 and found.left_out == 1 and np.isnan(found.fixations.t.iloc[-1])

@pytest.mark.parametrize('word', ['left', '12px', '1.2.3'])
def test_a_word_in_place_of_a_number_is_a_fault(word, tmp_path):
    rows = [*ROWS[:2], ['b.png', 'Eve', word, '3', '0', '9']]
    root = folder_of(tmp_path, fixations__csv=written(NAMES, rows))
    words = f"fixations.csv, line 4: x is '{word}', which is no number"
    with pytest.raises(DataError, match=words): read_fixations(root)
    assert kinds(read_fixations, root) == [('b', 'unreadable fixations')]

@pytest.mark.parametrize('name', ['nan', 'null', 'NA', '1001', '007', 'None', 'a.b'])
def test_names_that_look_like_something_else_are_names(name, tmp_path):
    lines = ['image,observer,x,y', f'{name}.png,NA,1,9', f'{name},null,2,8', 'z.png,001,3,4']
    found = read_fixations(table_of(tmp_path, lines, (f'{name}.png', 'z.png')))
    assert sorted(found.ids) == sorted([name, 'z']) and xy(found, name) == [[1, 9], [2, 8]]
    assert found.fixations.observer.tolist()[:2] in (['NA', 'null'], ['001', 'NA'])

@pytest.mark.parametrize('on_disk, in_table', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_accents_match_in_either_spelling(on_disk, in_table, tmp_path):
    disk = unicodedata.normalize(on_disk, 'Café Müller.png')
    table = unicodedata.normalize(in_table, 'Café Müller.png')
    found = read_fixations(table_of(tmp_path, ['image,x,y', f'{table},10,9', f'{table},3,4'], (disk,)))
    assert found.ids == [unicodedata.normalize('NFC', 'Café Müller')]
    assert len(check_images(found).fixations) == 2

NESTED = { # images on disk: names in the table, image ids they mean
    'folder written': (['s1/a.png', 's2/b.png'], {'s1/a.png': 'a', 's2\\b.png': 'b'}),
    'folder not written': (['s1/a.png', 's2/b.png'], {'a.png': 'a', 'b': 'b'}),
    'one name in two folders': (['s1/a.png', 's2/a.png'], {'s1/a.png': 's1_a', 'C:\\exp\\s2\\a.png': 's2_a'}),
    'one name at the top and below': (['a.png', 's2/a.png'], {'a.png': 'a', 's2/a.png': 's2_a'}),
    'folders of another computer': (['a.png', 'b.png'], {'C:\\stimuli\\a.png': 'a', '/home/x/b.png': 'b'}),
    'folders in folders': (
        ['x/s1/a.png', 'y/s1/a.png'],
        {'x/s1/a.png': 'x_s1_a', 'images/y/s1/a.png': 'y_s1_a'},
    ),
    'thumbnails beside': (['a.png', 'b.png', 'thumbs/c.png'], {'a.png': 'a', './b.png': 'b'}),
}

@pytest.mark.parametrize('kind', NESTED)
def test_images_in_sub_folders(kind, tmp_path):
    files, meant = NESTED[kind]
    lines = [f'{name},{10 + k},{5 + k}' for k, name in enumerate(meant)]
    found = read_fixations(table_of(tmp_path, ['image,x,y', *lines], files))
    assert found.ids == sorted(meant.values())
    assert all(xy(found, i) == [[10 + k, 5 + k]] for k, i in enumerate(meant.values()))

@pytest.mark.parametrize('rows, words', [
    (['a.png,10,5', 's1/a.png,3,4', 's2/a.png,3,4'], "'a.png' may mean s1_a or s2_a"),
    (['s3/a.png,10,5', 's1/a.png,10,5', 's2/a.png,3,4'], "'s3/a.png' may mean"),
])
def test_a_name_that_may_mean_two_images(rows, words, tmp_path):
    root = table_of(tmp_path, ['image,x,y', *rows], ['s1/a.png', 's2/a.png'])
    with pytest.raises(DataError, match=words): read_fixations(root)
    assert kinds(read_fixations, root) == [('a', 'fixations without image')]

@pytest.mark.parametrize('ending, named', [('csv', False), ('txt', False), ('tsv', True)])
def test_one_table_per_observer(ending, named, tmp_path):
    names = ['image', 'x', 'y'] + ['observer'] * named
    tables = {}
    for k, who in ((10, 'anna'), (11, 'ben')):
        observer = ['P' + who] * named
        rows = [['a.png', str(k), '9', *observer], ['b.png', '20', str(k), *observer]]
        tables[f'{who}__{ending}'] = written(names, rows, '\t')
    found = read_fixations(folder_of(tmp_path, **tables))
    assert found.fixations.observer.tolist() == (['Panna', 'Pben'] if named else ['anna', 'ben']) * 2
    assert found.fixations.order.eq(0).all()
    assert xy(found, 'a') == [[10, 9], [11, 9]]

@pytest.mark.parametrize('second, words', [
    (b'image,x,y\na,1,2\n', '2 tables of fixations'),
    (written(NAMES, ROWS), '2 tables of fixations, of which a.csv and b.csv are the same'),
])
def test_tables_that_are_no_data_set(second, words, tmp_path):
    root = folder_of(tmp_path, a__csv=written(NAMES, ROWS), b__csv=second)
    with pytest.raises(DataError, match=words): read_fixations(root)

@pytest.mark.parametrize('line', ['a,10,5,2,7', 'a,30,2,', 'b,3,4,1,1,1']) # the first: decimal commas
def test_rows_with_more_fields_than_the_first_line_are_not_cut(line, tmp_path):
    root = table_of(tmp_path, ['image,x,y', line, line])
    words = 'fixations.csv: not a readable table .its rows have more fields than its first line'
    with pytest.raises(DataError, match=words): read_fixations(root)

@pytest.mark.parametrize('header', ['image,x,y,note,note', 'image, x ,y,,'])
def test_further_columns_of_one_name_or_none_are_kept(header, tmp_path):
    found = read_fixations(table_of(tmp_path, [header, 'a,10,5,p,q', 'b,30,2,r,s']))
    assert xy(found, 'a') == [[10, 5]]
    assert found.fixations.iloc[:, -2:].values.tolist() == [['p', 'q'], ['r', 's']]

@pytest.mark.parametrize('order', ['inf', '', 'NA'])
def test_an_order_that_is_not_known(order, tmp_path):
    found = read_fixations(table_of(tmp_path, ['image,x,y,order', 'a,10,5,3', f'b,30,2,{order}']))
    assert found.fixations.order.tolist() == [3, -1]

def test_a_single_table_has_no_observer_from_its_name(tmp_path):
    found = read_fixations(table_of(tmp_path, ['image,x,y', 'a,30,2', 'b,3,40']))
    assert (found.fixations.observer == '').all()

# ---------------------------------------------------------------- pysaliency

def stimuli(root, kind, version, name='stimuli.hdf5'):
    for i in ('a', 'b'): picture(root/f'images/{i}.png')
    with h5py.File(root/name, 'w') as f:
        f.attrs.update(type=np.bytes_(kind), version=np.bytes_(version), size=2)
        if kind == 'Stimuli':
            for k in range(2): f[str(k)] = np.full((*SIZE, 3), 50 * k, np.uint8)
            return
        where = root/'images' if version == '1.0' else 'images'
        paths = np.array([f'{where}/{i}.png'.encode() for i in ('a', 'b')])
        f.create_dataset('filenames', data=paths, dtype=h5py.special_dtype(vlen=str))
        shapes = f.create_dataset('shapes', (2,), dtype=h5py.special_dtype(vlen=np.dtype('int64')))
        for k in range(2): shapes[k] = np.array([*SIZE, 3])

nan = np.nan
PADDED = dict(
    xs=[[10.5, 20, 30], [40, nan, nan]],
    ys=[[5, 6, 7], [8, nan, nan]],
    ts=[[0, .25, .5], [0, nan, nan]],
    durations=[[.2, .21, .22], [.3, nan, nan]],
)
FLAT = dict(x=[10.5, 20, 30, 40], y=[5, 6, 7, 8], t=[0, .25, .5, 0], n=[0, 0, 0, 1],
            duration=[.2, .21, .22, .3])

def single(f, version):
    "Fixations one by one."
    for k, v in FLAT.items(): f[k] = v
    f['subject' if version == '1.2' else 'subjects'] = [3, 3, 3, 4]
    f['x_hist'] = [[nan, nan], [10.5, nan], [10.5, 20], [nan, nan]]
    if version != '1.0': f['lengths'] = [0, 1, 2, 0]

def trains(f, version):
    "Scanpaths in rows, filled up with NaN."
    for k in ('xs', 'ys', 'ts'): f[f'train_{k}'] = PADDED[k]
    f['train_ns'], f['train_subjects'] = [0, 1], [3, 4]
    if version == '1.3': f['train_lengths'] = [3, 1]
    if version >= '1.2': f['scanpath_fixation_attributes/durations'] = PADDED['durations']
    else: f['duration'] = [.2, .21, .22, .3]

def group(f, version):
    for k in ('xs', 'ys'): f[f'scanpaths/{k}'] = PADDED[k]
    f['scanpaths/n'], f[f'scanpaths/{version}'] = [0, 1], [3, 1]
    f['scanpaths/scanpath_attributes/subject'] = [3, 4]
    for k in ('ts', 'durations'): f[f'scanpaths/fixation_attributes/{k}'] = PADDED[k]

FIXATION_FILES = [
    *[('Fixations', single, version) for version in ('1.0', '1.1', '1.2')],
    *[('FixationTrains', trains, version) for version in ('1.0', '1.1', '1.2', '1.3')],
    *[('ScanpathFixations', group, version) for version in ('length', 'lengths')],
]

def fixations(root, kind, write, version, name='fixations.hdf5'):
    with h5py.File(root/name, 'w') as f:
        f.attrs.update(type=np.bytes_(kind), version=np.bytes_(version))
        write(f, version)
    return root

@pytest.mark.parametrize('kind, write, version', FIXATION_FILES)
def test_hdf5_of_fixations(kind, write, version, tmp_path):
    stimuli(tmp_path, 'FileStimuli', '2.1')
    found = check_images(read_fixations(fixations(tmp_path, kind, write, version)))
    f = found.fixations
    assert xy(found, 'a') == [[10.5, 5], [20, 6], [30, 7]] and xy(found, 'b') == [[40, 8]]
    assert f.order.tolist() == [0, 1, 2, 0] and f.observer.tolist() == ['3', '3', '3', '4']
    assert f.t.tolist() == [0, 250, 500, 0] and np.allclose(f.duration, [200, 210, 220, 300])

@pytest.mark.parametrize('kind, version', [
    ('FileStimuli', '1.0'),
    ('FileStimuli', '2.0'),
    ('FileStimuli', '2.1'),
    ('Stimuli', '1.0'),
    ('Stimuli', '1.1'),
])
def test_hdf5_of_stimuli(kind, version, tmp_path):
    stimuli(tmp_path, kind, version)
    fixations(tmp_path, 'FixationTrains', trains, '1.3')
    options = dict(folder=tmp_path/'made') if kind == 'Stimuli' else {}
    found = check_images(read_fixations(tmp_path, **options))
    assert found.ids == (['0000', '0001'] if kind == 'Stimuli' else ['a', 'b']) and len(found.fixations) == 4
    if kind == 'Stimuli':
        with pytest.raises(ParameterError, match='give a folder'): read_fixations(tmp_path)

@pytest.mark.parametrize('split, observers', [('train', '34'), ('val', '34')])
def test_hdf5_of_several_splits(split, observers, tmp_path):
    for part in ('train', 'validation'):
        stimuli(tmp_path, 'FileStimuli', '2.1', f'stimuli_{part}.hdf5')
        fixations(tmp_path, 'Fixations', single, '1.2', f'fixations_{part}.h5')
    assert set(read_fixations(tmp_path, split=split).images.split) == {split}
    with pytest.raises(DataError, match='2 of stimuli and 2 of fixations'): read_fixations(tmp_path)

def truncate_stimuli(root):
    path = root/'stimuli.hdf5'
    path.write_bytes(path.read_bytes()[:300])

def of_other_stimuli(f, version):
    single(f, version)
    f['n'].write_direct(np.array([0, 0, 0, 7]))

def nothing(f, version): pass

BROKEN_HDF5 = {
    'stimuli are missing': (lambda r: (r/'stimuli.hdf5').unlink(), '0 of stimuli and 1 of fixations'),
    'stimuli are truncated': (truncate_stimuli, '0 of stimuli and 1 of fixations'),
    'fixations of other stimuli': (
        lambda r: fixations(r, 'Fixations', of_other_stimuli, '1.2'),
        'fixations on stimulus 7, but there are 2',
    ),
    'nothing is in it': (lambda r: fixations(r, 'Fixations', nothing, '1.2'), 'does not hold'),
}

@pytest.mark.parametrize('kind', BROKEN_HDF5)
def test_broken_hdf5_is_one_sentence(kind, tmp_path):
    damage, words = BROKEN_HDF5[kind]
    stimuli(tmp_path, 'FileStimuli', '2.1')
    damage(fixations(tmp_path, 'FixationTrains', trains, '1.3'))
    with pytest.raises(DataError, match=words) as e: read_fixations(tmp_path)
    assert str(e.value).endswith('.') and '\n' not in str(e.value)

@pytest.mark.parametrize('who, before, lasting', [
    ('subject', 'scanpath_history_length', 'duration'),
    ('subjects', 'lengths', 'durations'),
    ('subject', 'lengths', 'duration'),
])
def test_old_and_new_names_of_pysaliency(who, before, lasting, tmp_path):
    files = [tmp_path/'a.png', tmp_path/'b.png']
    for path in files: picture(path)
    named = {who: [4, 4, 5], before: [0, 1, 0], lasting: [.2, .1, .3]}
    looks = SimpleNamespace(x=[3., 5, 7.5], y=[10., 2, 3], t=[0, .3, 0], n=[0, 0, 1], **named)
    f = read_pysaliency(SimpleNamespace(filenames=files, sizes=[SIZE] * 2), looks).fixations
    assert f.observer.tolist() == ['4', '4', '5'] and f.order.tolist() == [0, 1, 0]
    assert f.duration.tolist() == [200, 100, 300]

# ---------------------------------------------------------------- one door

def mit1003(root, ending='.mat'):
    samples = np.repeat([[200., 150, 1], [60, 70, 1]], 60, axis=0)
    for i in ('i1', 'i2'):
        picture(root/f'ALLSTIMULI/{i}.jpeg', (300, 400))
        for o in ('ajs', 'CNG'):
            (root/f'DATA/{o}').mkdir(parents=True, exist_ok=True)
            path = root/f'DATA/{o}/{i}.mat'
            savemat(path, {i: dict(DATA=dict(eyeData=samples))})
            path.rename(path.with_suffix(ending))
    return root

def cat2000(root, ending='.mat'):
    for c in ('Action', 'Sketch'):
        picture(root/f'Stimuli/{c}/001.jpg')
        (root/f'FIXATIONLOCS/{c}').mkdir(parents=True, exist_ok=True)
        savemat(root/f'FIXATIONLOCS/{c}/001.mat', dict(fixLocs=np.eye(H, W)))
        (root/f'FIXATIONLOCS/{c}/001.mat').rename(root/f'FIXATIONLOCS/{c}/001{ending}')
    return root

def codecharts(root):
    picture(root/'raw_img/a.png')
    (root/'fix_maps/500').mkdir(parents=True)
    Image.fromarray(np.eye(H, W).astype(np.uint8) * 255).save(root/'fix_maps/500/a.png')
    return root

def own(root): return folder_of(root, fixations__csv=written(NAMES, ROWS))

def coco(root):
    picture(root/'images/a.jpg')
    return scanpaths(root, [trial('a.jpg', [840, 700], [525, 500])])

def hdf5(root):
    root.mkdir(exist_ok=True)
    stimuli(root, 'FileStimuli', '2.1')
    return fixations(root, 'Fixations', single, '1.2')

READ = dict(mit1003=mit1003, cat2000=cat2000, codecharts=codecharts, own=own, coco=coco, hdf5=hdf5)

@pytest.mark.parametrize('layout', READ)
def test_blur_is_an_option_of_every_layout(layout, tmp_path):
    root = READ[layout](tmp_path)
    assert read_fixations(root, sigma=7).sigma == 7
    assert read_fixations(root, degrees=.5, px_per_degree=20).sigma == 10
    assert read_fixations(root, px_per_degree=11).px_per_degree == 11
    with pytest.raises(ParameterError, match='either'): read_fixations(root, sigma=3, degrees=1)
    with pytest.raises(ParameterError, match='positive'): read_fixations(root, sigma=-1)
    with pytest.raises(ParameterError, match='no option .nose.*sigma'): read_fixations(root, nose=1)

LITTER = ['._{}', '.DS_Store', 'Thumbs.db', '.ipynb_checkpoints/{}', '__MACOSX/{}']

@pytest.mark.parametrize('layout', READ)
def test_hidden_files_are_passed_over(layout, tmp_path):
    root = READ[layout](tmp_path/'a')
    before = read_fixations(root)
    places = [root, *[p for p in root.rglob('*') if p.is_dir()]]
    for place in places:
        some = next((p.name for p in sorted(place.iterdir()) if p.is_file()), 'x.mat')
        for name in LITTER:
            path = place/name.format(some)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b'\x00\x05\x16\x07 no file')
    after = read_fixations(root)
    assert after.ids == before.ids and after.fixations.equals(before.fixations)

@pytest.mark.parametrize('layout', [mit1003, cat2000])
def test_mat_in_upper_case(layout, tmp_path):
    upper, lower = read_fixations(layout(tmp_path/'u', '.MAT')), read_fixations(layout(tmp_path/'l'))
    assert upper.fixations.equals(lower.fixations) and upper.ids == lower.ids

MIXED = { # what else lies in the folder of a table: what is read then
    'scanpaths': (coco, 'images and a table'),
    'HDF5': (hdf5, 'images and a table'),
    'both without a table': (lambda r: hdf5(coco(r)), 'COCO-FreeView'),
}

@pytest.mark.parametrize('kind', MIXED)
def test_the_first_layout_that_fits_is_read(kind, tmp_path):
    make, what = MIXED[kind]
    root = make(tmp_path)
    if what.startswith('images'): own(root)
    assert next(k for k, (fits, _) in LAYOUTS.items() if fits(root)).startswith(what)

def two_sketches(root):
    for name in ('001.png', '002.png'): picture(root/f'Stimuli/Sketch/{name}')

@pytest.mark.parametrize('layout, damage, fault', [
    (mit1003, lambda r: (r/'ALLSTIMULI/i2.jpeg').unlink(), ('i2', 'fixations without image')),
    (cat2000, two_sketches, ('Sketch_001', 'same id twice')),
    (own, lambda r: (r/'images/b.png').unlink(), ('b', 'fixations without image')),
    (own, lambda r: picture(r/'images/c.png'), ('c', 'image without fixations'))])
def test_faults_have_a_kind(layout, damage, fault, tmp_path):
    root = layout(tmp_path)
    damage(root)
    assert kinds(read_fixations, root)[0] == fault
