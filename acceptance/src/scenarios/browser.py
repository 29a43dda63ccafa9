"""A browser that knows as much as signing in needs: it opens a page, fills in its form, and sends it to where the page says, with the page's
cookies and hidden fields.

As a program it reads a JSON object from standard input, `{"address": …, "forms": [{field: value, …}, …]}`, and prints a line of JSON for each page:
its status, and what it says. A field that a page does not have ends it with an error.
"""

import json
import sys
from html.parser import HTMLParser
from urllib.parse import urljoin

import requests


class Page(HTMLParser):
    """What it says, and its form: where it goes, what is in it, and which fields there are."""

    def __init__(self, answer):
        super().__init__()
        self.address, self.status = answer.url, answer.status_code
        self.action, self.method = None, "get"
        self.values, self.fields, self.words = {}, set(), []
        self.is_style = False
        self.feed(answer.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.is_style = tag in ("style", "script")
        if tag == "form":
            self.action = urljoin(self.address, given.get("action") or self.address)
            self.method = given.get("method", "get").lower()
        name = given.get("name")
        if tag in ("input", "button") and name:
            self.fields.add(name)
            # A button is sent only when it is the one that was pressed.
            if tag == "input":
                self.values[name] = given.get("value") or ""

    def handle_endtag(self, tag):
        self.is_style = False

    def handle_data(self, data):
        if not self.is_style and data.strip():
            self.words.append(data.strip())

    def text(self):
        return " ".join(self.words)


def pages(address, forms):
    """All pages, one after the other: the first at the address, each further one the answer to a form."""
    session = requests.Session()
    page = Page(session.get(address, timeout=60))
    yield page
    for form in forms:
        missing = sorted(set(form) - page.fields)
        if page.action is None or missing:
            raise ValueError(f"no form with {missing} at {page.address}: {page.status} {page.text()}")
        page = Page(session.request(page.method, page.action, data={**page.values, **form}, timeout=60))
        yield page


def main():
    asked = json.load(sys.stdin)
    for page in pages(asked["address"], asked["forms"]):
        print(json.dumps({"status": page.status, "text": page.text()}), flush=True)


if __name__ == "__main__":
    main()
