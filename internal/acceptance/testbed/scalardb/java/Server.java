package testbed;

import com.scalar.db.server.ScalarDbServer;
import java.io.IOException;

/** The Scalar DB server, which ends with its standard input: a test that is killed leaves no server behind. */
public final class Server {
  private Server() {}

  public static void main(String[] args) {
    Thread guard = new Thread(Server::haltAtEnd, "test-guard");
    guard.setDaemon(true);
    guard.start();
    ScalarDbServer.main(args);
  }

  private static void haltAtEnd() {
    try {
      while (System.in.read() >= 0) {
        // Nothing is ever sent.
      }
    } catch (IOException e) {
      // The same as the end.
    }
    Runtime.getRuntime().halt(1);
  }
}
