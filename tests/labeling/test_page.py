"""The labelling page as text: complete, escaped, and restricted to its own script."""

import base64
import hashlib
import re

from vidgru.labeling.page import label_page


def test_page_allows_only_its_own_script() -> None:
    page = label_page("</script><b>")
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in page
    assert "connect-src 'self'; media-src 'self'" in page
    assert "<b>" not in page.replace("<b id=", "")
    assert "{{" not in page.replace(script[1], "")
    assert "innerHTML" not in page


def test_page_has_every_element_of_its_script() -> None:
    page = label_page("secret")
    ids = set(re.findall(r' id="([a-z_]+)"', page))
    used = set(re.findall(r"byId\('([a-z_]+)'\)", page))
    report_only = {"strip", "scores", "edit_form"}  # of parts that are shared with the report, not reached here
    assert used - ids <= report_only
