import net from "node:net";

/**
 * The other end of the floor's round trips, as its own process: answers each request of `requestBytes`
 * with `answerBytes`, those of one read in one write. Says at which port, and after each connection what
 * it has cost: CPU time in microseconds.
 */
const [requestBytes, answerBytes] = process.argv.slice(2).map(Number) as [number, number];
const answer = Buffer.alloc(answerBytes);

const server = net.createServer({ noDelay: true }, (socket) => {
  const before = process.cpuUsage();
  let waitingBytes = 0;
  socket.on("data", (bytes) => {
    waitingBytes += bytes.length;
    socket.cork();
    for (; waitingBytes >= requestBytes; waitingBytes -= requestBytes) socket.write(answer);
    socket.uncork();
  });
  socket.on("end", () => {
    const { user, system } = process.cpuUsage(before);
    process.send?.({ cpuUs: user + system });
  });
});
server.listen({ host: "127.0.0.1", port: 0 }, () => {
  process.send?.({ port: (server.address() as net.AddressInfo).port });
});
process.on("disconnect", () => process.exit());
