import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Prng } from "./prng.ts";
import { Roster, type Seat } from "./roster.ts";

describe("a roster", () => {
  it("keeps the order of entering, whoever leaves", () => {
    const prng = new Prng(5);
    const roster = new Roster<number>();
    let seats: Seat<number>[] = [];
    for (let step = 0; step < 2000; step += 1) {
      if (prng.chance(0.55)) seats.push(roster.enter(step));
      else if (seats.length > 0) {
        const [left] = seats.splice(Math.floor(prng.unit() * seats.length), 1);
        assert.equal(roster.leave(left!), true);
        assert.equal(roster.leave(left!), false);
        assert.equal(left!.before, null);
        assert.equal(left!.after, null);
      }
      assert.equal(roster.size, seats.length);
      assert.equal(roster.first, seats[0]?.value ?? null);
    }
    const values = seats.map((seat) => seat.value);
    assert.deepEqual(roster.members(), values);
    assert.deepEqual([...roster], values);
    roster.clear();
    assert.equal(roster.size, 0);
    assert.deepEqual(roster.members(), []);
    for (const seat of seats) assert.equal(roster.leave(seat), false);
    seats = [roster.enter(1)];
    assert.equal(new Roster<number>().leave(seats[0]!), false);
    assert.equal(roster.first, 1);
  });
});
