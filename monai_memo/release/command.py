# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``monai-memo release`` prints."""

from __future__ import annotations

from typing import Any

from monai_memo.audit.verdict import percent
from monai_memo.data.cohort import by_reason
from monai_memo.release.release import Release
from monai_memo.release.rules import SECOND, SECOND_NEAR
from monai_memo.release.statement import Statement


def _use(said: Statement) -> str:
    """What to do with the bound."""
    if said.contradicted:
        return f"do not quote this number: {said.doubt}"
    if said.says_nothing:
        return (
            "that is every image: the bound says nothing. Plant more copies (--planted), or train the detector longer"
        )
    if said.unchecked:
        return (
            f"this is the number to quote, unchecked: the second detector finds {said.looks[-1].found} of "
            f"{said.looks[-1].planted} planted copies, so that the little it calls says nothing"
        )
    return "this is the number to quote; the excess of a look checks it"


def release(**arguments: Any) -> int:
    """Make a release and tell what became of it.

    Returns:
        How many images could not be released because they cannot be read or written.
    """
    done = Release(**arguments).run()
    said, left = done.statement, done.statement.left
    drawn = 0 if said.drawn is None else said.drawn["released"]
    further = f" and {drawn} that were drawn further" if said.drawn is not None else ""
    lines = [f"released  {said.released - drawn} of {said.audited} images{further}"]
    if said.asked is not None and said.released < said.asked:
        lines.append(
            f"warning: {said.asked} images were asked for and {said.released} are left: later steps took more than the "
            "surplus that was drawn for them. Ask for more (--top_up_to) if you need so many"
        )
    lines += [f"removed   {number} {reason}" for reason, number in said.removed.items()]
    if said.drawn is not None:
        lines.append(
            f"drawn     {said.drawn['drawn']} further images: {said.drawn['released']} released, "
            f"{said.drawn['copies']} rejected as copies, {said.drawn['others']} for other reasons, "
            f"{said.drawn['unusable']} could not be used{f' ({said.drawn_unusable})' if said.drawn_unusable else ''}, "
            f"{said.drawn['removed']} removed later, {said.drawn['surplus']} not needed"
        )
    for number, one in enumerate(said.looks, 1):
        excess = f"{percent(one.excess.value)} ({percent(one.excess.low)} to {percent(one.excess.high)})"
        lines.append(
            f"look {number}    a second detector calls {one.copies} of {one.images} copies, {one.in_part} in part; "
            f"excess over the control {excess}"
        )
    later = {SECOND: said.removed_by_second, SECOND_NEAR: said.removed_near}
    lines += [f"removed   {number} {reason}" for reason, number in later.items() if number]
    last = said.looks[-1] if said.looks else None
    if last is not None and last.copies + last.in_part:
        lines.append(
            f"released  what look {len(said.looks)} still calls is among the images: {last.copies} copies, "
            f"{last.in_part} in part. Some are called by chance in every look: see them before you share"
        )
    if said.spared:
        lines.append(f"kept      {said.spared} that raters call novel")
    if left.copies is None:
        lines.append("left      not known: no planted copy was found")
    else:
        share = percent(left.copies / said.released)
        lines.append(
            f"left      at most {left.copies} copies ({share}), with {100 * said.confidence:g} % confidence, of the "
            f"kinds that were planted ({left.found} of {left.planted} found)"
        )
        lines.append(f"          {_use(said)}")
    if said.patients_copied:
        lines.append(
            f"exposed   what was removed is nearest to {said.patients_copied} training patients, "
            f"{said.most_exposed} of it to the most exposed one"
        )
    if done.skipped:
        lines.append(f"warning: {by_reason(f'{len(done.skipped)} images cannot be released', done.skipped)}")
    lines += ["", f"give away {done.out.resolve()}", f"keep      {done.private.resolve()} (the key: do not share it)"]
    lines += [f"next      read {done.out.name}/RELEASE.md, complete what says TO FILL IN, and let somebody sign it"]
    print("\n".join(lines))
    return len(done.skipped)
