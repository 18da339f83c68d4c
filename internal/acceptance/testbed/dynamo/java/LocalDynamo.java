package testbed;

import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBRequestHandler;
import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBServerHandler;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.ContextHandler;

/**
 * DynamoDB Local, in memory, on a free port of the loopback interface. Its own main class has no option for the address and listens on all of
 * them, and sends telemetry unless told not to; here nothing is set up to send any. The program prints its port, and ends with its standard
 * input, so that it never outlives who started it.
 */
public final class LocalDynamo {
  private LocalDynamo() {}

  public static void main(String[] args) throws Exception {
    LocalDynamoDBRequestHandler requests = new LocalDynamoDBRequestHandler(0, true, null, false, false);
    Server server = new Server(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    server.setHandler(new ContextHandler(new LocalDynamoDBServerHandler(requests, null)));
    server.start();
    System.out.println("port " + ((ServerConnector) server.getConnectors()[0]).getLocalPort());
    System.out.flush();
    while (System.in.read() >= 0) {}
    // Not exit: hooks that wait for background threads would keep the process, and there is nothing to save.
    Runtime.getRuntime().halt(0);
  }
}
