package testbed;

import io.grpc.ServerBuilder;
import io.grpc.ServerProvider;
import io.grpc.netty.NettyServerBuilder;
import java.net.InetAddress;
import java.net.InetSocketAddress;

/**
 * Binds the Scalar DB server to the loopback address. The server asks gRPC for a server on a port, and gRPC asks the provider of
 * the highest priority on the class path; its own would listen on every address of the machine.
 */
public final class LoopbackServerProvider extends ServerProvider {
  @Override
  protected boolean isAvailable() {
    return true;
  }

  @Override
  protected int priority() {
    return 10; // the highest there is; Netty's own has 5
  }

  @Override
  protected ServerBuilder<?> builderForPort(int port) {
    return NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
  }
}
