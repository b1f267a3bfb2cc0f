"""Which edits of files are detected."""

from __future__ import annotations

import asyncio
import os

from fal_cli.commands.dev.watching import Watcher, sources_below


def test_edits_appearances_and_removals_are_noticed_once(tmp_path):
    edited, removed, late, same = (tmp_path / name for name in ("edited.py", "removed.py", "late.py", "same.py"))
    for path in (edited, removed, same):
        path.write_text("1")
    watcher = Watcher()
    watcher.watch([edited, removed, late, same])
    assert watcher.look() == []
    edited.write_text("22")
    removed.unlink()
    late.write_text("1")
    assert set(watcher.look()) == {edited, removed, late}
    assert watcher.look() == []


def test_an_editor_that_replaces_the_file_with_one_of_the_same_time_and_size_is_noticed(tmp_path):
    path, draft = tmp_path / "app.py", tmp_path / "draft"
    path.write_text("1")
    watcher = Watcher()
    watcher.watch([path])
    at = path.stat()
    draft.write_text("2")
    os.utime(draft, ns=(at.st_atime_ns, at.st_mtime_ns))
    draft.replace(path)
    assert watcher.look() == [path]


def test_what_was_edited_before_the_list_changed_still_counts(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("1")
    watcher = Watcher()
    watcher.watch([one])
    one.write_text("22")
    watcher.watch([one, two])
    assert watcher.look() == [one]


async def test_the_wait_ends_with_an_edit(tmp_path):
    path = tmp_path / "app.py"
    watcher = Watcher()
    watcher.watch([path])
    waiting = asyncio.create_task(watcher.changed())
    await asyncio.sleep(0)
    path.write_text("1")
    assert await waiting == [path]
    assert await watcher.is_complete()


async def test_an_edit_that_goes_on_is_not_complete_and_all_of_it_is_told(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    watcher = Watcher()
    watcher.watch([one, two])
    one.write_text("1")
    assert await watcher.changed() == [one]
    one.write_text("12")
    two.write_text("1")
    assert not await watcher.is_complete()
    assert await watcher.changed() == [one, two]
    assert await watcher.is_complete()


def test_what_is_not_the_authors_is_not_watched(tmp_path):
    for name in ("app.py", "pack/one.py", "node_modules/x.py", ".venv/y.py", "__pycache__/z.py", "data.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert set(sources_below(tmp_path)) == {tmp_path / "app.py", tmp_path / "pack" / "one.py"}
