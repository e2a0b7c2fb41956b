"""The rules in the ROM against the Python model, on boards poked into its memory."""

import numpy as np
import pytest

from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.blocks_bot import (
    HEIGHT,
    RAM_START,
    RAM_STOP,
    SHAPES,
    SPAWN_COLUMN,
    WIDTH,
    board_of,
    fits,
    land,
)

pytestmark = pytest.mark.unit

STATE, LEVEL, PIECE, TURN, POSITION, PHASE = 0xC002, 0xC003, 0xC00E, 0xC00F, 0xC010, 0xC011
NEXT, LOGIC_LINE_MAX, FALL_TIMER, LINES_TO_LEVEL, HANG_TIMER = 0xC014, 0xC016, 0xC017, 0xC01A, 0xC01B
BOARD, WORD_SCORE, WORD_LINES = 0xC020, 0xC006, 0xC008
A, B, LEFT, UP, RIGHT, DOWN, NOTHING = range(7)
FRAMES_PER_ROW = (24, 22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 4, 3, 2)


@pytest.fixture(scope="module")
def world():
    env = BlocksEnv()
    yield env
    env.close()


@pytest.fixture
def env(world):
    world.reset(seed=11)
    return world


def poke_board(env, board):
    for (row, column), cell in np.ndenumerate(board):
        env.memory[BOARD + 8 * row + column] = int(cell)


def peek_board(env):
    return board_of(env.memory[RAM_START:RAM_STOP])


def poke_piece(env, piece, turn, row, column, *, hang=0):
    for address, value in (
        (STATE, 1),
        (PHASE, 0),
        (PIECE, piece),
        (TURN, turn),
        (POSITION, row * 8 + column),
        (HANG_TIMER, hang),
        (FALL_TIMER, 200),
    ):
        env.memory[address] = value


def random_board(rng):
    """Free rows above a random mixture of holes, nearly full rows and full columns."""
    board = np.zeros((HEIGHT, WIDTH), np.uint8)
    top = rng.integers(0, HEIGHT)
    board[top:] = rng.random((HEIGHT - top, WIDTH)) < rng.choice([0.4, 0.8, 0.95])
    return board[:, rng.permutation(WIDTH)]


def random_place(rng, board):
    """A piece, turn and place that fit, or None after some tries."""
    for _ in range(20):
        piece, turn = int(rng.integers(6)), int(rng.integers(4))
        row, column = int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))
        if fits(board, SHAPES[piece][turn], row, column):
            return piece, turn, row, column
    return None


def settle(env, max_frames=40):
    """Steps until the next piece falls or the game is over; sum of the rewards and end of game."""
    total = 0.0
    for _ in range(max_frames):
        _, reward, terminated, _, _ = env.step(NOTHING)
        total += reward
        if terminated or env.memory[PHASE] == 0:
            return total, terminated
    raise AssertionError("the game did not come to the next piece")


def test_drop_break_clear_and_score_agree_with_the_model(env):
    rng = np.random.default_rng(2)
    lines_seen, overs = [], 0
    for case in range(600):
        env.reset(seed=case) if case % 50 == 0 else None
        board = random_board(rng)
        place = random_place(rng, board)
        if place is None:
            continue
        piece, turn, row, column = place
        env.step(NOTHING)
        poke_board(env, board)
        poke_piece(env, piece, turn, row, column)
        next_piece, info = env.memory[NEXT], env._info()
        _, reward, *_ = env.step(B)
        assert reward == 0
        total, terminated = settle(env)
        expected = land(board, SHAPES[piece][turn], row, column)
        context = (case, piece, turn, row, column)
        np.testing.assert_array_equal(peek_board(env), expected.board, err_msg=str(context))
        after = env._info()
        assert total == after["score"] - info["score"] == expected.points, context
        assert after["lines"] - info["lines"] == expected.lines, context
        assert after["pieces"] - info["pieces"] == 1, context
        assert env.memory[PIECE] == next_piece
        assert terminated == (not fits(expected.board, SHAPES[next_piece][0], 0, SPAWN_COLUMN)), context
        lines_seen.append(expected.lines)
        overs += terminated
    assert {0, 1, 2, 3} <= set(lines_seen), "the boards must reach every score"
    assert overs > 5
    assert env.memory[LOGIC_LINE_MAX] < 144


def test_turns_and_shifts_agree_with_the_model(env):
    rng = np.random.default_rng(3)
    nudged = blocked = 0
    for _ in range(800):
        board = random_board(rng)
        place = random_place(rng, board)
        if place is None:
            continue
        piece, turn, row, column = place
        env.step(NOTHING)
        poke_board(env, board)
        poke_piece(env, piece, turn, row, column, hang=int(rng.integers(2)) * 9)
        action = int(rng.choice([A, UP, LEFT, RIGHT]))
        env.step(action)
        if action in (LEFT, RIGHT):
            places = [(turn, column + (1 if action == RIGHT else -1))]
        else:
            new_turn = (turn + (1 if action == A else -1)) % 4
            places = [(new_turn, column - nudge) for nudge in range(3)]
        good = [(t, c) for t, c in places if fits(board, SHAPES[piece][t], row, c)]
        turn, column = good[0] if good else (turn, column)
        assert (env.memory[TURN], env.memory[POSITION]) == (turn, row * 8 + column)
        nudged += bool(good) and good[0] != places[0]
        blocked += not good
    assert nudged > 5
    assert blocked > 50


@pytest.mark.parametrize("level", range(18))
def test_piece_falls_one_row_per_so_many_frames(env, level):
    env.memory[LEVEL] = level
    poke_board(env, np.zeros((HEIGHT, WIDTH)))
    poke_piece(env, 0, 0, 0, 2)
    env.memory[FALL_TIMER] = 1
    rows = []
    for _ in range(1 + 2 * FRAMES_PER_ROW[level]):
        env.step(NOTHING)
        rows.append(env.memory[POSITION] >> 3)
    assert rows == [1] * FRAMES_PER_ROW[level] + [2] * FRAMES_PER_ROW[level] + [3]


def test_down_falls_a_row_every_two_frames(env):
    poke_piece(env, 0, 0, 0, 2)
    rows = []
    for _ in range(6):
        env.step(DOWN)
        rows.append(env.memory[POSITION] >> 3)
    assert rows == [0, 1, 1, 2, 2, 3]


def test_new_piece_hangs_for_twelve_frames_in_which_it_can_only_be_steered(env):
    poke_piece(env, 0, 0, 0, 2, hang=12)
    for key in (B, DOWN, B, RIGHT, B, DOWN, B, DOWN, B, DOWN, B, DOWN):
        env.step(key)
        assert (env.memory[PHASE], env.memory[POSITION] >> 3) == (0, 0)
    assert env.memory[POSITION] == 3
    env.step(B)
    assert (env.memory[PHASE], env.memory[POSITION] >> 3) == (1, 11)


def test_every_eight_lines_the_level_rises_up_to_fifteen(env):
    levels = []
    for _ in range(17 * 8):
        board = np.zeros((HEIGHT, WIDTH), np.uint8)
        board[-1, 1:] = 1
        poke_board(env, board)
        poke_piece(env, 0, 0, 5, 0)
        env.step(B)
        settle(env)
        levels.append(env._info()["level"])
    assert levels == [min(lines // 8, 15) for lines in range(1, 17 * 8 + 1)]
    digits = bytes(env.memory[0xC0A0:0xC0AB]).decode()
    assert digits == "00136" + "0136" + "15"


def test_levels_above_fifteen_are_for_games_that_begin_there(env):
    for begun, after_eight_lines in ((15, 15), (16, 17), (17, 17)):
        env.reset(seed=1)
        env.memory[LEVEL] = begun
        for _ in range(8):
            board = np.zeros((HEIGHT, WIDTH), np.uint8)
            board[-1, 1:] = 1
            poke_board(env, board)
            poke_piece(env, 0, 0, 5, 0)
            env.step(B)
            settle(env)
        assert env._info()["level"] == after_eight_lines


def test_score_figures_carry_through_all_places(env):
    for place, digit in enumerate("00999"):
        env.memory[0xC0A0 + place] = ord(digit)
    board = np.zeros((HEIGHT, WIDTH), np.uint8)
    board[-1, 1:] = 1
    poke_board(env, board)
    poke_piece(env, 0, 0, 5, 0)
    env.step(B)
    settle(env)
    assert bytes(env.memory[0xC0A0:0xC0A5]) == b"01000"


def test_reward_survives_the_wrap_of_the_score_word(env):
    env.memory[WORD_SCORE], env.memory[WORD_SCORE + 1] = 0xFF, 0xFF
    env.step(NOTHING)
    board = np.zeros((HEIGHT, WIDTH), np.uint8)
    board[-1, 1:] = 1
    poke_board(env, board)
    poke_piece(env, 0, 0, 5, 0)
    env.step(B)
    total, _ = settle(env)
    assert total == 1.0


def test_game_over_stays_over_until_the_next_reset(env):
    poke_board(env, np.ones((HEIGHT, WIDTH)) * np.array([1, 1, 1, 1, 1, 0]))
    env.memory[PHASE] = 2
    for _ in range(5):
        _, reward, terminated, truncated, _ = env.step(B)
        assert (reward, terminated, truncated) == (0.0, True, False)
    env.reset()
    assert env.step(NOTHING)[2] is False


def test_seed_decides_the_order_of_the_pieces(env):
    def pieces(seed):
        env.reset(seed=seed)
        order = []
        for _ in range(12):
            order.append(env.memory[PIECE])
            poke_board(env, np.zeros((HEIGHT, WIDTH)))
            poke_piece(env, 0, 0, 11, 0)
            env.step(B)
            settle(env)
        return tuple(order)

    orders = {seed: pieces(seed) for seed in range(30)}
    assert len(set(orders.values())) == 30
    assert orders[4] == pieces(4)
    dealt = np.bincount([piece for order in orders.values() for piece in order], minlength=6)
    assert (dealt > 0).all()
    assert dealt[1] + dealt[3] > dealt[0] + dealt[2], "pair and corner are dealt twice as often"


def dealt_by_seed(word, count):
    """The first pieces of a game from its seed word, as roms/README.md describes it."""
    word = word or 0xACE1
    order = []
    for _ in range(count + 3):
        word ^= (word << 7) & 0xFFFF
        word ^= word >> 9
        word ^= (word << 8) & 0xFFFF
        order.append((0, 1, 2, 3, 4, 5, 1, 3)[word >> 3 & 7])
    return order[3:]


@pytest.mark.parametrize("wait_frames", [0, 5])
@pytest.mark.parametrize("seed", [0, 1, 2024])
def test_pieces_follow_from_the_seed_alone_however_long_each_takes(env, seed, wait_frames):
    word = int(np.random.default_rng(seed).integers(1, 0x10000))
    env.reset(seed=seed)
    order = []
    for _ in range(20):
        order.append(env.memory[PIECE])
        poke_board(env, np.zeros((HEIGHT, WIDTH)))
        poke_piece(env, env.memory[PIECE], 0, 0, 0)
        for _ in range(wait_frames):
            env.step(NOTHING)
        env.step(B)
        settle(env)
    assert order == dealt_by_seed(word, 20)
