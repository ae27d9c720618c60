"""Chapters as readers see them: hidden cells and nbdev's directive lines dropped. Run as a script, writes the
pages of the Sphinx site.

usage: python tools/pages.py   (notebooks as executed, texts -> docs/pages/)"""
import re, shutil
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent
DIRECTIVE = re.compile(r'#\|\s*([\w-]+):?\s*(.*)')
HIDDEN = {'hide', 'default_exp', 'exporti'}

def directives(source):
    "The nbdev directives at the top of a cell, as {name: value}, and the source without them."
    lines, found = source.splitlines(), {}
    while lines and (m := DIRECTIVE.match(lines[0].strip())):
        found[m[1]] = m[2].strip()
        lines.pop(0)
    return found, '\n'.join(lines).strip()

def reader_view(nb):
    "The notebook without hidden cells and directive lines, which become MyST's tags and metadata."
    cells = []
    for cell in nb.cells:
        if cell.cell_type == 'code':
            found, cell.source = directives(cell.source)
            if found.keys() & HIDDEN or found.get('include') == 'false' or not cell.source: continue
            wishes = {('echo', 'false'): 'remove-input', ('code-fold', 'true'): 'hide-input'}
            tags = [tag for (key, value), tag in wishes.items() if found.get(key) == value][:1]
            alt = dict(mystnb=dict(image=dict(alt=found['fig-alt'].strip('"')))) if 'fig-alt' in found else {}
            cell.metadata = nbformat.from_dict((dict(tags=tags) if tags else {}) | alt)
        cells.append(cell)
    nb.cells, nb.metadata.language_info = cells, dict(name='python', pygments_lexer='ipython3')
    return nb

def describe(cell, said):
    "Give the figures of a cell the sentence that follows as alternative text, unless they have one."
    if cell.cell_type != 'code' or not said: return
    image = cell.metadata.setdefault('mystnb', {}).setdefault('image', {})
    image.setdefault('alt', said)

def main():
    "Pages lie as their sources do, so that links from one to another hold."
    from saliency_nb.runs import alternative_texts # the README needs no Jupyter to be written
    pages = ROOT/'docs'/'pages'
    shutil.rmtree(pages, ignore_errors=True)
    notebooks = *(ROOT/'nbs').glob('*.ipynb'), *(ROOT/'nbs').glob('[a-z]*/*.ipynb')
    texts = [ROOT/name for name in ('data/README.md', 'docs/promises.md', 'docs/licences.md', 'LICENSE')]
    for path in (*notebooks, *texts):
        target = pages/path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != '.ipynb':
            shutil.copy(path, target)
            continue
        nb = reader_view(nbformat.read(path, 4))
        for cell, said in zip(nb.cells, alternative_texts(nb.cells)): describe(cell, said)
        nbformat.write(nb, target)

if __name__ == '__main__': main()
