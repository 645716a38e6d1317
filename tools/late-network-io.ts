import type { Message, Network } from "../brick/host.ts";
import type { BrickNumber } from "../brick/units.ts";

/**
 * A network that begins to speak once the brick knows its boot number. Until then nothing is sent
 * and nothing arrives, as if it were cut off.
 */
export class LateNetwork implements Network {
  #network: Network | null = null;
  #receiver: ((from: BrickNumber, message: Message) => void) | null = null;
  #peers: ReadonlyMap<BrickNumber, string> | null = null;

  attach(network: Network): void {
    this.#network = network;
    if (this.#receiver !== null) network.onMessage(this.#receiver);
    if (this.#peers !== null) network.setPeers(this.#peers);
  }

  send(to: BrickNumber, message: Message): void {
    this.#network?.send(to, message);
  }

  onMessage(receiver: (from: BrickNumber, message: Message) => void): void {
    this.#receiver = receiver;
    this.#network?.onMessage(receiver);
  }

  setPeers(peers: ReadonlyMap<BrickNumber, string>): void {
    this.#peers = peers;
    this.#network?.setPeers(peers);
  }
}
