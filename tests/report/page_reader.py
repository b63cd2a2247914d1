"""A page as tests read it."""

import html.parser
import json

VOID = {"meta", "link", "input", "br", "img"}


class Reader(html.parser.HTMLParser):
    """Checks that elements close in order; collects what tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.sections, self.ids, self.references, self.scripts = [], [], [], [], []
        self.images, self.text = [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID | {"path"}:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(values["id"])
        if tag == "img":
            self.images.append(values)
        if tag == "script":
            self.scripts.append("")
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[k] for k in ("src", "href", "srcset", "action", "data", "poster") if values.get(k)]

    def handle_endtag(self, tag):
        if tag not in VOID | {"path"}:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert not reader.open and len(reader.ids) == len(set(reader.ids))
    return reader


def data_of(reader):
    return json.loads(reader.scripts[0])
