// Sprites, their tracks and the clocks: `genray/gen/world/tracks.py` and `state.py` in JavaScript.

const GHOST = 3; // a vanished sprite is remembered for this many screens
const OLDEST = 15; // larger ages are not counted
const STEADY = 31; // longer times without a change are not counted
const CLOCK = 127; // clocks stop here
const LARGE = 24; // sprites with at least this many pixels start clocks
const ACTIONS = 9; // last actions that a state keeps
const LONGEST = [16, 24]; // larger moves (dy, dx) are cut to this size where they are remembered

export class Sprite {
  constructor(look, y, x) {
    Object.assign(this, { look, y, x });
  }
}

/** A sprite and its recent past. `moves`: the last ones, [dy, dx] or null, the newest first. */
export class Track {
  constructor(look, previous, y, x, age, unseen, same_look, same_y, moves) {
    Object.assign(this, { look, previous, y, x, age, unseen, same_look, same_y, moves });
  }

  /** The numbers that the network reads. */
  past() {
    const numbers = [
      this.look, this.previous, this.y, this.x, this.age, this.unseen, this.same_look, this.same_y,
    ]; // prettier-ignore
    for (const move of this.moves) {
      for (const axis of [0, 1]) {
        const most = LONGEST[axis];
        numbers.push(move ? Math.min(Math.max(move[axis], -most), most) + most + 1 : 0);
      }
    }
    return numbers;
  }

  /** This track after a step in which its sprite was seen. */
  seen({ look, y, x }) {
    const move = [y - this.y, x - this.x],
      since = (steps, changed) => (changed ? 0 : Math.min(steps + 1, STEADY));
    return new Track(
      look, this.look, y, x, Math.min(this.age + 1, OLDEST), 0,
      since(this.same_look, look !== this.look), since(this.same_y, move[0] !== 0),
      [move, ...this.moves.slice(0, -1)],
    ); // prettier-ignore
  }

  /** This track after a step in which its sprite was not seen. */
  hidden() {
    return Object.assign(new Track(), this, {
      age: Math.min(this.age + 1, OLDEST),
      unseen: this.unseen + 1,
    });
  }
}

/** The tracks of a game, its last actions and its clocks. */
export class State {
  /** `groups`, `sizes`: group and number of pixels of each look; `memory`: moves of a track. */
  constructor({ groups, sizes, memory }, tracks, actions, clocks) {
    Object.assign(this, { groups, sizes, memory, tracks, actions, clocks });
  }

  act(action) {
    this.actions = [action, ...this.actions.slice(0, ACTIONS - 1)];
  }

  /** Moves on to the next screen. */
  follow({ sprites, births, events }) {
    const { groups, sizes } = this;
    this.clocks = this.clocks.map((clock) => Math.min(CLOCK, clock + 1));
    if (events[1]) this.clocks[1] = 0;
    for (const { look } of births) if (sizes[look] >= LARGE) this.clocks[2 + 2 * groups[look]] = 0;
    const next = births.map(
      ({ look, y, x }) => new Track(look, look, y, x, 0, 0, 0, 0, new Array(this.memory).fill(null)),
    );
    // Tracks beyond the longest list have no sprite in the step; they are forgotten.
    sprites.forEach((sprite, number) => {
      const track = this.tracks[number];
      if (!sprite && !track.unseen && sizes[track.look] >= LARGE) {
        this.clocks[3 + 2 * groups[track.look]] = 0;
      }
      if (sprite) next.push(track.seen(sprite));
      else if (track.unseen < GHOST) next.push(track.hidden());
    });
    const key = ({ look, unseen, y, x }) => [groups[look], unseen, y, x, look];
    this.tracks = next
      .map((track) => [key(track), track])
      .sort(([a], [b]) => {
        const differs = a.findIndex((each, place) => each !== b[place]);
        return differs < 0 ? 0 : a[differs] - b[differs];
      })
      .map(([, track]) => track);
  }

  /** The sprites on the screen. */
  visible() {
    return this.tracks.filter((track) => !track.unseen);
  }
}
