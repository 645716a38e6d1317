import {
  connectionsPerAddressMax,
  connectionsPerPortalMax,
  loginsInProgressMax,
} from "./limits.ts";
import type { Connection } from "./session-state.ts";

/**
 * Whether there is room for one more connection. "no": it is refused. A connection: there is, when
 * that one, whose login is not over, makes room.
 */
export function findRoom(
  connections: ReadonlySet<Connection>,
  address: string,
): "yes" | "no" | Connection {
  let ofAddress = 0;
  const logins = new Map<string, Connection[]>();
  let loginCount = 0;
  for (const connection of connections) {
    if (connection.address === address) ofAddress += 1;
    if (connection.phase === "full" || connection.closing !== null) continue;
    loginCount += 1;
    const beside = logins.get(connection.address);
    if (beside === undefined) logins.set(connection.address, [connection]);
    else beside.push(connection);
  }
  // Sets keep the order of insertion: the first of an address is its oldest.
  const own = logins.get(address)?.[0];
  if (ofAddress >= connectionsPerAddressMax) return own ?? "no";
  if (loginCount < loginsInProgressMax && connections.size < connectionsPerPortalMax) return "yes";
  // Who has most logins open pays with the one that has been at it longest: a flood from one
  // address pushes out itself, and a right login takes a few milliseconds.
  let most: readonly Connection[] = [];
  for (const beside of logins.values()) if (beside.length > most.length) most = beside;
  return most[0] ?? "no";
}
