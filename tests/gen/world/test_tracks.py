"""Tests matching sprites by hand, and ghosts."""

from genray.gen.world.tracks import GHOST, STEADY, Looks, Outcome, Sprite, advance, begin, match

LOOKS = Looks([(0, 0), (1, 0), (2, 0)], [0, 0, 1])
"""Looks 0 and 1 are of one group, look 2 of another one."""


def test_crossing_sprites_keep_their_identity():
    """Two sprites of different looks pass each other: each is found by its look."""
    tracks = begin([Sprite(0, 10, 20), Sprite(1, 10, 26)], LOOKS)
    assert [track.look for track in tracks] == [0, 1]
    outcome = match(tracks, [Sprite(1, 10, 22), Sprite(0, 10, 24)], LOOKS)
    assert outcome == Outcome([Sprite(0, 10, 24), Sprite(1, 10, 22)], [])
    # One sprite changes its look: 4 for the look is less than the longer ways.
    outcome = match(tracks, [Sprite(0, 10, 21), Sprite(0, 10, 27)], LOOKS)
    assert outcome.sprites == [Sprite(0, 10, 21), Sprite(0, 10, 27)]


def test_matching_takes_the_smallest_total_cost():
    """By hand: 4→5 and 9→0 costs 1 + 9, and 4→0 and 9→5 costs 4 + 4. The nearest pair, 4→5, is not
    taken.
    """
    tracks = begin([Sprite(0, 0, 4), Sprite(0, 0, 9)], LOOKS)
    outcome = match(tracks, [Sprite(0, 0, 0), Sprite(0, 0, 5)], LOOKS)
    assert outcome.sprites == [Sprite(0, 0, 0), Sprite(0, 0, 5)]


def test_far_sprites_and_other_groups_are_births():
    tracks = begin([Sprite(0, 50, 50)], LOOKS)
    outcome = match(tracks, [Sprite(0, 50, 75), Sprite(2, 50, 50)], LOOKS)
    assert outcome == Outcome([None], [Sprite(0, 50, 75), Sprite(2, 50, 50)])


def test_a_vanished_sprite_stays_a_ghost_and_comes_back():
    tracks = begin([Sprite(0, 8, 8)], LOOKS)
    for unseen in range(1, GHOST + 1):
        tracks = advance(tracks, match(tracks, [], LOOKS), LOOKS)
        assert [track.unseen for track in tracks] == [unseen]
    back = advance(tracks, match(tracks, [Sprite(1, 9, 10)], LOOKS), LOOKS)
    assert [(each.look, each.previous, each.unseen) for each in back] == [(1, 0, 0)]
    assert back[0].moves[0] == (1, 2)
    assert advance(tracks, match(tracks, [], LOOKS), LOOKS) == []


def test_a_track_knows_how_long_its_look_and_its_height_have_not_changed():
    tracks = begin([Sprite(0, 8, 8)], LOOKS)
    known = []
    for sprite in [(0, 8, 9), (0, 8, 10), (0, 6, 10), (1, 6, 10), (1, 6, 11)]:
        tracks = advance(tracks, match(tracks, [Sprite(*sprite)], LOOKS), LOOKS)
        known.append((tracks[0].same_look, tracks[0].same_y))
    assert known == [(1, 1), (2, 2), (3, 0), (0, 1), (1, 2)]
    for _ in range(STEADY + 5):
        tracks = advance(tracks, match(tracks, [Sprite(1, 6, 11)], LOOKS), LOOKS)
    assert (tracks[0].same_look, tracks[0].same_y) == (STEADY, STEADY)
