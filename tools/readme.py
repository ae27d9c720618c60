"""README.md from nbs/index.ipynb, its pictures in docs/images.

usage: python tools/readme.py"""
import posixpath, re
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config
from pages import ROOT, reader_view

IMAGES = 'docs/images'
LINK = re.compile(r'(\]\()(?!\w+:|#|/)([^)\s]+)(\))')

def from_root(markdown):
    "Relative links of a Markdown cell, which start at nbs/, made to start at the repository's root."
    return LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join('nbs', m[2])) + m[3], markdown)

def with_alt(markdown, nb):
    "Pictures named by the `fig-alt` of their cell instead of nbconvert's 'png'."
    def image(m):
        cell = nb.cells[int(m[2])]
        return f"![{cell.metadata.get('mystnb', {}).get('image', {}).get('alt', 'figure')}]({m[1]})"
    return re.sub(rf'!\[\w+\]\(({IMAGES}/index_(\d+)_\d+\.\w+)\)', image, markdown)

def readme(notebook=ROOT/'nbs'/'index.ipynb'):
    "Text of the README, and its pictures as {path from the root: bytes}."
    nb = reader_view(nbformat.read(notebook, 4))
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = from_root(cell.source)
    resources = dict(unique_key='index', output_files_dir=IMAGES)
    config = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags=['remove-input']))
    text, resources = MarkdownExporter(config=config).from_notebook_node(nb, resources)
    text = with_alt(text, nb)
    text = re.sub(r'<style.*?</style>', '', text, flags=re.S) # of tables; GitHub would show it as text
    text = re.sub(r'[ \t]+$', '', re.sub(r'\n{3,}', '\n\n', text), flags=re.M).strip() + '\n'
    note = '<!-- made from nbs/index.ipynb by tools/readme.py: edit there -->'
    return f'{note}\n\n{text}', resources['outputs']

def main():
    text, pictures = readme()
    for old in (ROOT/IMAGES).glob('index_*'): old.unlink()
    for path, content in pictures.items():
        (ROOT/path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/path).write_bytes(content)
    (ROOT/'README.md').write_text(text, encoding='utf-8')

if __name__ == '__main__': main()
